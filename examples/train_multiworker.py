"""Trains the digits' network of digits_cnn.py on several workers, which TensorFlow's collectives keep equal.

    ailab run --workers 2 --strategy multiworker --retries 2 --resume -- python train_multiworker.py

Where one worker dies, all are started again, and go on with the epoch after the last checkpoint.
"""

import argparse
import hashlib
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
import ailab_progress
import numpy as np
import tensorflow as tf
from digits_cnn import BATCH, make_model, pictures


def main():
    words = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    words.add_argument("--epochs", type=int, default=5)
    words.add_argument("--pictures", type=int, default=4096)
    chosen = words.parse_args()

    # Before anything else of TensorFlow: it reads TF_CONFIG, which ailab has set, and waits for the other workers.
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    tf.keras.utils.set_random_seed(7)
    images, labels = pictures(chosen.pictures, 7)
    data = tf.data.Dataset.from_tensor_slices((images, labels)).shuffle(len(images), seed=7)
    data = data.batch(BATCH * strategy.num_replicas_in_sync, drop_remainder=True)
    options = tf.data.Options()
    # Each worker takes its part of every batch's pictures.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    data = data.with_options(options)
    with strategy.scope():
        model = make_model()
        # Every worker reads the checkpoint; the first one writes it.
        first = ailab_progress.restore(model)
    if first:
        print("goes on after epoch", first, flush=True)
    if first < chosen.epochs:
        callbacks = [ailab_progress.keras(checkpoint=True)]
        model.fit(data, initial_epoch=first, epochs=chosen.epochs, verbose=2, callbacks=callbacks)
    weights = hashlib.sha256(b"".join(np.asarray(one).tobytes() for one in model.get_weights())).hexdigest()
    print(f"replicas {strategy.num_replicas_in_sync} weights {weights[:12]}")
    if os.environ.get("AILAB_WORKER", "0") == "0":
        alone = make_model()
        alone.set_weights(model.get_weights())
        loss, accuracy = alone.evaluate(*pictures(512, 9), verbose=0)
        print(f"loss {loss:.4f} accuracy {accuracy:.4f}")


if __name__ == "__main__":
    main()
