"""Trains the digits' network of digits_cnn.py on several workers, which Horovod keeps equal.

ailab run --workers 2 --strategy horovod --retries 2 --resume -- python train_horovod.py
"""

import argparse
import hashlib
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
import ailab_progress
import horovod.tensorflow.keras as hvd
import numpy as np
import tensorflow as tf
from digits_cnn import BATCH, make_model, pictures


def main():
    words = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    words.add_argument("--epochs", type=int, default=5)
    words.add_argument("--pictures", type=int, default=4096)
    chosen = words.parse_args()

    hvd.init()
    tf.keras.utils.set_random_seed(7)
    images, labels = pictures(chosen.pictures, 7)
    data = tf.data.Dataset.from_tensor_slices((images, labels)).shard(hvd.size(), hvd.rank())
    data = data.shuffle(len(images), seed=7).batch(BATCH, drop_remainder=True)
    model = make_model()
    model.compile(
        # Steps of so many batches at once are as many times as long.
        hvd.DistributedOptimizer(tf.keras.optimizers.Adam(0.003 * hvd.size())),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    first = ailab_progress.restore(model)
    if first:
        print("goes on after epoch", first, flush=True)
    if first < chosen.epochs:
        # The first worker's variables are everybody's from the first step on.
        equal = hvd.callbacks.BroadcastGlobalVariablesCallback(0)
        callbacks = [equal, hvd.callbacks.MetricAverageCallback(), ailab_progress.keras(checkpoint=True)]
        model.fit(data, initial_epoch=first, epochs=chosen.epochs, verbose=2, callbacks=callbacks)
    weights = hashlib.sha256(b"".join(np.asarray(one).tobytes() for one in model.get_weights())).hexdigest()
    print(f"ranks {hvd.size()} weights {weights[:12]}")
    if hvd.rank() == 0:
        loss, accuracy = model.evaluate(*pictures(512, 9), verbose=0)
        print(f"loss {loss:.4f} accuracy {accuracy:.4f}")


if __name__ == "__main__":
    main()
