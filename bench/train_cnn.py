"""Train a small Keras CNN on synthetic data from a fixed seed; print how many samples a second it took, as JSON.

    python train_cnn.py

Run by bench/images.py with the same environment's Python as a bare process and in a container. The first epoch, in
which TensorFlow builds its graph and fills its thread pools, is not counted.
"""

from __future__ import annotations

import json
import time

SAMPLES = 2048
BATCH = 64
EPOCHS = 12


def main() -> None:
    import numpy as np
    import tensorflow as tf

    tf.keras.utils.set_random_seed(7)
    layers = tf.keras.layers
    model = tf.keras.Sequential(
        [
            layers.Conv2D(32, 3, activation="relu", input_shape=(32, 32, 3)),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(10),
        ]
    )
    model.compile(optimizer="adam", loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    images = np.random.rand(SAMPLES, 32, 32, 3).astype("float32")
    labels = np.random.randint(0, 10, SAMPLES)
    model.fit(images, labels, batch_size=BATCH, epochs=1, verbose=0)
    started = time.perf_counter()
    model.fit(images, labels, batch_size=BATCH, epochs=EPOCHS, verbose=0)
    spent = time.perf_counter() - started
    print(json.dumps({"samples_per_second": SAMPLES * EPOCHS / spent, "seconds": spent}))


if __name__ == "__main__":
    main()
