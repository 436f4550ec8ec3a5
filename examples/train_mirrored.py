"""Trains the digits' network of digits_cnn.py in one process on several devices: GPUs, or parts of the CPU.

ailab run --workers 2 --strategy mirrored --gpus 1 -- python train_mirrored.py
"""

import argparse
import hashlib
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
import ailab_progress
import numpy as np
import tensorflow as tf
from digits_cnn import BATCH, make_model, pictures


def devices(count):
    """That many devices: the GPUs that the job has, else as many parts of the CPU."""
    if tf.config.list_physical_devices("GPU"):
        return None
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    return [f"CPU:{number}" for number in range(count)]


def main():
    words = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    words.add_argument("--epochs", type=int, default=5)
    words.add_argument("--pictures", type=int, default=4096)
    chosen = words.parse_args()

    workers = int(os.environ.get("AILAB_WORKERS", "1"))
    strategy = tf.distribute.MirroredStrategy(devices(workers))
    tf.keras.utils.set_random_seed(7)
    images, labels = pictures(chosen.pictures, 7)
    # A batch is split between the devices, so it is as many times as large.
    data = tf.data.Dataset.from_tensor_slices((images, labels)).shuffle(len(images), seed=7)
    data = data.batch(BATCH * strategy.num_replicas_in_sync, drop_remainder=True)
    with strategy.scope():
        model = make_model()
    first = ailab_progress.restore(model)
    if first < chosen.epochs:
        callbacks = [ailab_progress.keras(checkpoint=True)]
        model.fit(data, initial_epoch=first, epochs=chosen.epochs, verbose=2, callbacks=callbacks)
    weights = hashlib.sha256(b"".join(np.asarray(one).tobytes() for one in model.get_weights())).hexdigest()
    print(f"replicas {strategy.num_replicas_in_sync} weights {weights[:12]}")
    alone = make_model()
    alone.set_weights(model.get_weights())
    loss, accuracy = alone.evaluate(*pictures(512, 9), verbose=0)
    print(f"loss {loss:.4f} accuracy {accuracy:.4f}")


if __name__ == "__main__":
    main()
