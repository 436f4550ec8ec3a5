"""One of two workers of a small Keras CNN, on synthetic data from a fixed seed; prints samples a second, as JSON.

    TF_CONFIG=... python train_gang.py

Run by bench/jobs.py as a gang, and as two processes that a person starts. A first, short epoch, in which the workers
meet and build their graphs, is not counted; nor is the end of the second, long one: TensorFlow 2.9 ends an epoch's
iterator no sooner than the next tick of its tuning (10, 30, 70, 150, 310, 630 ms... 10.2, 20.5 s after it was made), so
that short epochs take 630 or 1270 ms each, by chance.
"""

from __future__ import annotations

import json
import time

SAMPLES = 2048
# Of both workers: small ones would measure how soon an idle CPU wakes up.
BATCH = 256
STEPS = 160


def main() -> None:
    import numpy as np
    import tensorflow as tf

    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    tf.keras.utils.set_random_seed(7)
    images = np.random.rand(SAMPLES, 32, 32, 3).astype("float32")
    labels = np.random.randint(0, 10, SAMPLES)
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    data = tf.data.Dataset.from_tensor_slices((images, labels)).repeat().batch(BATCH).with_options(options)
    layers = tf.keras.layers
    with strategy.scope():
        model = tf.keras.Sequential(
            [
                layers.Conv2D(32, 3, activation="relu", input_shape=(32, 32, 3)),
                layers.MaxPooling2D(),
                layers.Conv2D(64, 3, activation="relu"),
                layers.Flatten(),
                layers.Dense(10),
            ]
        )
        loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer="adam", loss=loss)
    model.fit(data, epochs=1, steps_per_epoch=8, verbose=0)
    at: list[float] = []

    def look(*_epoch: object) -> None:
        at.append(time.perf_counter())

    clock = tf.keras.callbacks.LambdaCallback(on_epoch_begin=look, on_epoch_end=look)
    model.fit(data, epochs=1, steps_per_epoch=STEPS, verbose=0, callbacks=[clock])
    spent = at[1] - at[0]
    print(json.dumps({"samples_per_second": BATCH * STEPS / spent, "seconds": spent}), flush=True)


if __name__ == "__main__":
    main()
