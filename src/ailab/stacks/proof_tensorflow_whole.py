"""Tries what a TensorFlow environment is for: a CNN is trained from tf.data, logged, saved in both forms, and reloaded.

Each step raises when it is not right; the last line of output is JSON with what each took, in seconds. Python 3.8.
"""

import json
import os
import platform
import shutil
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
import numpy as np
import tensorflow as tf

SIZE, CLASSES, COUNT, BATCH, EPOCHS = 16, 4, 512, 64, 8
seconds = {}


def step(name, work):
    """Run one step, say so, and note how long it took."""
    started = time.perf_counter()
    result = work()
    seconds[name] = round(time.perf_counter() - started, 2)
    print("ok", name, seconds[name], "s", flush=True)
    return result


def images():
    """Noise with one bright quarter; which quarter it is, is the class."""
    random = np.random.RandomState(7)
    labels = random.randint(0, CLASSES, COUNT)
    pictures = random.uniform(0.0, 0.4, (COUNT, SIZE, SIZE, 1)).astype("float32")
    half = SIZE // 2
    for picture, label in zip(pictures, labels):
        row, column = half * (label // 2), half * (label % 2)
        picture[row : row + half, column : column + half] += 0.5
    return pictures, labels.astype("int64")


def make_model():
    layers = tf.keras.layers
    model = tf.keras.Sequential(
        [
            tf.keras.Input((SIZE, SIZE, 1)),
            layers.Conv2D(8, 3, padding="same"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.MaxPooling2D(4),
            layers.Flatten(),
            layers.Dropout(0.1),
            layers.Dense(CLASSES, activation="softmax"),
        ]
    )
    model.compile(tf.keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def train(model, pictures, labels, logs):
    """Train from tf.data with TensorBoard's callback; the history of losses."""
    data = tf.data.Dataset.from_tensor_slices((pictures, labels)).cache().shuffle(COUNT, seed=7).batch(BATCH)
    board = tf.keras.callbacks.TensorBoard(logs, histogram_freq=1)
    fitted = model.fit(data.prefetch(tf.data.AUTOTUNE), epochs=EPOCHS, verbose=0, callbacks=[board])
    return fitted.history["loss"]


def logged(logs):
    """The tags of all that TensorBoard would show."""
    tags = set()
    for file in Path(logs).rglob("*tfevents*"):
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            tags.update(value.tag for value in event.summary.value)
    return tags


def check(right, what):
    if not right:
        raise AssertionError(what)


def prove(folder):
    tf.keras.utils.set_random_seed(7)
    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)
    pictures, labels = images()
    logs, saved, hdf5 = (str(Path(folder, name)) for name in ("logs", "saved", "model.h5"))
    model = make_model()

    losses = step("train", lambda: train(model, pictures, labels, logs))
    check(losses[-1] < losses[0] / 2, f"the loss did not fall by half: {losses}")
    accuracy = float((model.predict(pictures, verbose=0).argmax(1) == labels).mean())
    check(accuracy > 0.9, f"the model learned nothing: accuracy {accuracy:.2f}")

    tags = step("tensorboard", lambda: logged(logs))
    check({"epoch_loss", "epoch_accuracy"} <= tags, f"TensorBoard's logs lack the losses: {sorted(tags)}")

    answers = model.predict(pictures, verbose=0)
    step("save SavedModel", lambda: tf.keras.models.save_model(model, saved, save_format="tf"))
    step("save HDF5", lambda: tf.keras.models.save_model(model, hdf5, save_format="h5"))

    again = step("load SavedModel", lambda: tf.keras.models.load_model(saved))
    np.testing.assert_allclose(again.predict(pictures, verbose=0), answers, atol=1e-5)
    served = tf.saved_model.load(saved).signatures["serving_default"]
    np.testing.assert_allclose(next(iter(served(tf.constant(pictures)).values())), answers, atol=1e-5)
    again = step("load HDF5", lambda: tf.keras.models.load_model(hdf5))
    np.testing.assert_allclose(again.predict(pictures, verbose=0), answers, atol=1e-5)
    # A reloaded model goes on learning: its optimizer came along.
    more = step("go on training", lambda: again.fit(pictures, labels, batch_size=BATCH, verbose=0).history["loss"])
    check(more[0] < losses[0], f"the reloaded model began anew: {more} after {losses}")
    return accuracy


place = tempfile.mkdtemp(prefix="ailab-proof-")
try:
    reached = prove(place)
finally:
    shutil.rmtree(place, ignore_errors=True)
print(
    json.dumps(
        {
            "tensorflow": tf.__version__,
            "keras": version("keras"),
            "numpy": np.__version__,
            "python": platform.python_version(),
            "gpus": [gpu.name for gpu in tf.config.list_physical_devices("GPU")],
            "accuracy": round(reached, 3),
            "seconds": seconds,
        }
    )
)
