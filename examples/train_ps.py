"""Trains the digits' network of digits_cnn.py by a chief that hands out steps to workers; a server has the variables.

    ailab run --workers 2 --strategy ps --retries 2 --resume -- python train_ps.py

The same command runs as chief, worker and server: TF_CONFIG, which ailab has set, says which one it is.
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
import ailab_progress
import tensorflow as tf
from digits_cnn import BATCH, make_model, pictures


def train(resolver, epochs, count):
    strategy = tf.distribute.experimental.ParameterServerStrategy(resolver)
    images, labels = pictures(count, 7)

    def dataset(context):
        """What one worker learns from: all pictures, in an order of its own, again and again."""
        data = tf.data.Dataset.from_tensor_slices((images, labels)).shuffle(len(images)).repeat()
        return data.batch(BATCH).prefetch(2)

    with strategy.scope():
        model = make_model()
        first = ailab_progress.restore(model)
    if first:
        print("goes on after epoch", first, flush=True)
    if first < epochs:
        model.fit(
            tf.keras.utils.experimental.DatasetCreator(dataset),
            steps_per_epoch=len(images) // BATCH,
            initial_epoch=first,
            epochs=epochs,
            verbose=2,
            callbacks=[ailab_progress.keras(checkpoint=True)],
        )
    alone = make_model()
    alone.set_weights(model.get_weights())
    loss, accuracy = alone.evaluate(*pictures(512, 9), verbose=0)
    print(f"loss {loss:.4f} accuracy {accuracy:.4f}")


def main():
    words = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    words.add_argument("--epochs", type=int, default=5)
    words.add_argument("--pictures", type=int, default=4096)
    chosen = words.parse_args()

    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    if resolver.task_type == "chief":
        train(resolver, chosen.epochs, chosen.pictures)
    else:
        # With one CPU, and so one thread, a worker would wait for itself.
        config = tf.compat.v1.ConfigProto(inter_op_parallelism_threads=4)
        place = resolver.task_type, resolver.task_id
        # Serves until ailab ends it, which it does when the chief is done.
        tf.distribute.Server(resolver.cluster_spec(), *place, protocol="grpc", config=config).join()


if __name__ == "__main__":
    main()
