"""Trains a small convolutional network to read digits, as a job that reports its progress and can be ended at any time.

The digits are drawn with NumPy, so nothing is downloaded. Started again after it was killed, it goes on with the epoch
after the last checkpoint and ends, on as many CPUs, with the very numbers of a training that was left alone:

    ailab run -- python examples/digits_cnn.py --epochs 10 --seed 7
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
import numpy as np
import tensorflow as tf

try:
    import ailab_progress
except ImportError:
    raise SystemExit("Not a job of ailab: put a copy of ailab_progress.py beside this script to run it.") from None

SIZE, BATCH = 16, 32
# Three columns and five rows for each digit, from 0 to 9.
DIGITS = """
    ### .#. ### ### #.# ### ### ### ### ###
    #.# ##. ..# ..# #.# #.. #.. ..# #.# #.#
    #.# .#. ### .## ### ### ### .#. ### ###
    #.# .#. #.. ..# ..# ..# #.# .#. #.# ..#
    ### ### ### ### ..# ### ### .#. ### ###
"""


def pictures(count, seed):
    """`count` pictures, each with a digit twice its size somewhere in noise, and which digit it is."""
    random = np.random.RandomState(seed)
    rows = [line.split() for line in DIGITS.split("\n") if line.strip()]
    shapes = [np.array([[dot == "#" for dot in row[digit]] for row in rows], dtype="float32") for digit in range(10)]
    labels = random.randint(0, 10, count)
    found = random.uniform(0.0, 0.3, (count, SIZE, SIZE, 1)).astype("float32")
    for picture, label in zip(found, labels):
        shape = np.kron(shapes[label], np.ones((2, 2), dtype="float32"))
        top, left = random.randint(0, SIZE - shape.shape[0] + 1), random.randint(0, SIZE - shape.shape[1] + 1)
        picture[top : top + shape.shape[0], left : left + shape.shape[1], 0] += 0.7 * shape
    return found, labels.astype("int64")


def make_model():
    layers = tf.keras.layers
    model = tf.keras.Sequential(
        [
            tf.keras.Input((SIZE, SIZE, 1)),
            layers.Conv2D(16, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dropout(0.2),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(tf.keras.optimizers.Adam(0.003), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def batches(images, labels, first, epochs, seed):
    """The batches of the epochs from `first` on. An epoch's order depends on the seed and its number alone, so it is
    the same whether the epochs before it were in this process or not."""
    for epoch in range(first, epochs):
        order = np.random.RandomState([seed, epoch]).permutation(len(images))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            chosen = order[start : start + BATCH]
            yield images[chosen], labels[chosen]


def main():
    words = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    words.add_argument("--epochs", type=int, default=5)
    words.add_argument("--seed", type=int, default=7)
    words.add_argument("--pictures", type=int, default=4096)
    chosen = words.parse_args()

    tf.keras.utils.set_random_seed(chosen.seed)
    # Keras 2: dropout's random numbers have a state that a checkpoint can hold. In Keras 3 they always have.
    if hasattr(tf.keras.backend, "experimental"):
        tf.keras.backend.experimental.enable_tf_random_generator()

    images, labels = pictures(chosen.pictures, chosen.seed)
    model = make_model()
    first = ailab_progress.restore(model)
    if first:
        print("goes on after epoch", first, flush=True)
    if first < chosen.epochs:
        model.fit(
            batches(images, labels, first, chosen.epochs, chosen.seed),
            steps_per_epoch=len(images) // BATCH,
            epochs=chosen.epochs,
            initial_epoch=first,
            validation_data=pictures(512, chosen.seed + 1),
            shuffle=False,
            verbose=2,
            callbacks=[ailab_progress.keras(checkpoint=True)],
        )
    loss, accuracy = model.evaluate(*pictures(512, chosen.seed + 2), verbose=0)
    print(f"final loss {loss!r} accuracy {accuracy!r}")


if __name__ == "__main__":
    main()
