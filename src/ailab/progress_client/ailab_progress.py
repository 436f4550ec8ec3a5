"""How a training script tells ailab how far it is, and goes on where it was ended: `report`, `keras`, `restore`.

A job finds this module on its PYTHONPATH. It is one file, needs Python 3.8 and nothing else (checkpoints need the
NumPy that comes with the framework), and does nothing outside of a job: a script that uses it runs anywhere beside a
copy of it.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import math
import os
import random
import sys
import threading
import time
import zipfile
from pathlib import Path
from typing import Any

# Seconds between two points that are written, and between those of two ends of epochs: a curve has a point for each
# epoch, however short they are.
INTERVAL = 0.5
EPOCHS_INTERVAL = 0.05
# The file's bytes, beyond which points that are near each other in time become one.
LIMIT = 1_000_000
# As many as tell the rate and the usual interval; they stay as they are.
_NEWEST = 60
_MOST_METRICS = 100
_LONGEST_NAME = 100
_KEPT_CHECKPOINTS = 2
_PLACES = ("epoch", "epochs", "step", "steps")


def report(
    epoch: Any = None, epochs: Any = None, step: Any = None, steps: Any = None, loss: Any = None, **metrics: Any
) -> None:
    """Say where the training is and what it has reached. May be called as often as one likes, and never raises.

    `epoch` counts from 1: the one that it is in, or that has just ended. `step` is how many steps of it are done.
    `epochs` and `steps` are how many there will be. What is not given stays as it was. `loss` and `metrics` are
    numbers, or what `float` takes. Written at most twice a second; the last one always, when the script ends.
    """
    _reporter.report((epoch, epochs, step, steps), metrics if loss is None else {"loss": loss, **metrics})


def flush() -> None:
    """Write the last report now, if it is not written yet."""
    _reporter.flush()


def checkpoint_folder() -> Path | None:
    """The job's folder for checkpoints, the same one each time it is started; None outside of a job."""
    name = os.environ.get("AILAB_CHECKPOINTS")
    if not name:
        return None
    folder = Path(name)
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


class _Reporter:
    """The file that AILAB_PROGRESS names, one JSON object a line, and the point that is not written yet."""

    def __init__(self, path: str | None) -> None:
        self._path = Path(path) if path else None
        self._lock = threading.Lock()
        self._place: dict[str, Any] = {}
        self._metrics: dict[str, Any] = {}
        self._pending_since: float | None = None
        self._written = -math.inf
        self._torn = True  # another process may have been killed in the middle of a line

    def report(self, place: tuple[Any, Any, Any, Any], metrics: dict[str, Any], ended: bool = False) -> None:
        # Nobody waits: who comes while another thread, or the one below a signal's handler, is in here is left out.
        if self._path is None or not self._lock.acquire(blocking=False):
            return
        try:
            if place[0] is not None and place[0] != self._place.get("epoch"):
                self._place.pop("step", None)
            for index, value in enumerate(place):
                if value is not None:
                    self._place[_PLACES[index]] = value
            # With those of reports that were left out: an epoch's val_loss comes once, just before the next step.
            self._metrics.update(metrics)
            self._pending_since = time.time()
            if time.monotonic() >= self._written + (EPOCHS_INTERVAL if ended else INTERVAL):
                self._write()
        except Exception as problem:
            _say_once(f"a report could not be written: {problem!r}")
        finally:
            self._lock.release()

    def flush(self) -> None:
        if self._path is None or not self._lock.acquire(timeout=1.0):
            return
        try:
            if self._pending_since is not None:
                self._write()
        except Exception as problem:
            _say_once(f"a report could not be written: {problem!r}")
        finally:
            self._lock.release()

    def _write(self) -> None:
        self._written = time.monotonic()
        point: dict[str, Any] = {"t": round(self._pending_since or 0.0, 3)}
        point.update({name: _count(self._place.get(name)) for name in _PLACES})
        metrics, self._metrics, self._pending_since = self._metrics, {}, None
        numbers = {str(name)[:_LONGEST_NAME]: _number(metrics[name]) for name in list(metrics)[:_MOST_METRICS]}
        point["metrics"] = {name: number for name, number in numbers.items() if number is not None}
        self._append(_line(point))

    def _append(self, line: bytes) -> None:
        assert self._path is not None
        descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            if self._torn and size and os.pread(descriptor, 1, size - 1) != b"\n":
                line = b"\n" + line
            self._torn = os.write(descriptor, line) != len(line)
        finally:
            os.close(descriptor)
        if size + len(line) > LIMIT:
            _thin(self._path)


def _line(point: dict[str, Any]) -> bytes:
    return json.dumps(point, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def _thin(path: Path) -> None:
    """Make half as many points: of those in one span of time the last, with the metrics of the others that it lacks.

    The spans are as long as that needs, and begin at multiples of their length: what was thinned before is thinned
    again only when all of it has to be, so that a curve stays as fine at its beginning as later on.
    """
    points = []
    for line in path.read_bytes().splitlines():
        with contextlib.suppress(ValueError):
            point = json.loads(line)
            if isinstance(point, dict) and isinstance(point.get("metrics"), dict) and _is_number(point.get("t")):
                points.append(point)
    split = len(points) - min(_NEWEST, len(points) // 4)
    older, newest = points[:split], points[split:]
    seconds = 0.001
    while len({point["t"] // seconds for point in older}) > len(older) // 2:
        seconds *= 2
    spans: dict[float, dict[str, Any]] = {}
    for point in older:
        span = point["t"] // seconds
        metrics = spans[span]["metrics"] if span in spans else {}
        spans[span] = dict(point, metrics={**metrics, **point["metrics"]})
    fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with fresh.open("wb") as sink:
            for point in [*spans.values(), *newest]:
                sink.write(_line(point))
        fresh.chmod(0o600)
        fresh.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _number(value: Any) -> Any:
    """A metric as JSON has it: 9 digits, which is all that a float32 holds; what JSON lacks as a word; else None."""
    try:
        number = float(value)
    except Exception:
        return None
    if math.isfinite(number):
        return float(f"{number:.9g}")
    return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"


def _count(value: Any) -> int | None:
    try:
        return None if value is None else int(value)
    except Exception:
        return None


_said: set[str] = set()


def _say_once(sentence: str) -> None:
    """Tell on standard error, which is the job's log."""
    with contextlib.suppress(Exception):
        if sentence not in _said and len(_said) < 10:
            _said.add(sentence)
            print("ailab_progress:", sentence, file=sys.stderr, flush=True)


_reporter = _Reporter(os.environ.get("AILAB_PROGRESS"))
atexit.register(_reporter.flush)


def keras(checkpoint: bool = False) -> Any:
    """A callback for Keras' `fit` (TensorFlow 2.9's and Keras 3) that reports epochs, steps and metrics. With
    `checkpoint` it also saves all that `restore` needs at the end of each epoch: put it last in the list of callbacks,
    so that what others change (a learning rate) is saved too."""

    class Progress(_keras().callbacks.Callback):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            # Keras 2 hands the tensors over as they are: only what is written is waited for and copied from a GPU.
            self._supports_tf_logs = True
            self._epoch = self._step = 0
            self._steps: int | None = None

        def _tell(self, logs: Any, ended: bool = False) -> None:
            params = self.params or {}
            steps = params.get("steps") or self._steps
            # Within an epoch of a parameter server's training they are on some worker, and not to be had yet.
            numbers = dict(logs) if isinstance(logs, dict) else {}
            _reporter.report((self._epoch, params.get("epochs"), self._step, steps), numbers, ended)

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self._epoch, self._step = epoch + 1, 0
            self._tell(None)

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self._step = batch + 1
            self._tell(logs)

        def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
            # A long validation is no stall; its running numbers are not the training's.
            if self._epoch:
                self._tell(None)

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self._steps = self._step  # of a dataset that does not know its length
            self._tell(logs, ended=True)
            if checkpoint:
                save(self.model, epoch + 1)

        def on_train_end(self, logs: Any = None) -> None:
            flush()

    return Progress()


def _keras() -> Any:
    """The Keras that the script uses."""
    if "keras" in sys.modules and "tensorflow" not in sys.modules:
        return sys.modules["keras"]
    try:
        import tensorflow
    except ImportError:
        import keras as alone  # Keras 3 on another framework

        return alone
    return tensorflow.keras


def save(model: Any, epoch: int) -> None:
    """Write a checkpoint of a Keras model after `epoch` epochs, in one step that a kill does not tear: weights,
    optimizer, learning rate, and the states of Python's, NumPy's and the layers' random numbers. The last two are kept.
    A full disk costs the checkpoint, not the training. Does nothing outside of a job. Where several workers train
    together all of them call it, for some variables can only be read by all at once, and the first one writes."""
    folder = checkpoint_folder()
    if folder is None:
        return
    try:
        _write_checkpoint(folder, model, epoch)
    except OSError as problem:
        _say_once(f"no checkpoint was written: {problem}")


def restore(model: Any) -> int:
    """Bring a model, built and compiled, to its last checkpoint; the number of epochs that are done, for
    `fit(initial_epoch=...)`. 0 where there is no checkpoint, and outside of a job. A file that cannot be read is passed
    over for the one before it. Raises ValueError when the checkpoint is of another model."""
    import numpy

    folder = checkpoint_folder()
    for path in reversed(sorted(folder.glob("epoch-*.npz")) if folder else []):
        try:
            with numpy.load(path, allow_pickle=False) as saved:
                arrays = {name: saved[name] for name in saved.files}
            described = json.loads(arrays.pop("described").tobytes())
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as problem:
            _say_once(f"{path} cannot be read, the checkpoint before it is taken: {problem}")
            continue
        variables = _variables(model)
        if {name: array.shape for name, array in arrays.items()} != {
            name: tuple(variable.shape) for name, variable in variables.items()
        }:
            raise ValueError(
                f"{path} is of another model, or this one is not yet built and compiled as that one was. "
                f"To begin anew, remove the files in {folder}."
            )
        for name, variable in variables.items():
            variable.assign(_as(arrays[name], variable))
        version, numbers, gauss = described["python"]
        random.setstate((version, tuple(numbers), gauss))
        numpy.random.set_state(tuple(described["numpy"]))
        return int(described["epoch"])
    return 0


def _as(array: Any, variable: Any) -> Any:
    """A saved array as the variable's kind of numbers: NumPy's files know no bfloat16, only that it has 2 bytes."""
    return array.view(variable.numpy().dtype) if array.dtype.kind == "V" else array


def _write_checkpoint(folder: Path, model: Any, epoch: int) -> None:
    import numpy

    arrays = {name: numpy.asarray(variable.numpy()) for name, variable in _variables(model).items()}
    if os.environ.get("AILAB_WORKER", "0") != "0":
        return
    kind, key, *rest = numpy.random.get_state()
    described = {"epoch": epoch, "python": random.getstate(), "numpy": [kind, key.tolist(), *rest]}
    arrays["described"] = numpy.frombuffer(json.dumps(described).encode(), dtype=numpy.uint8)
    for left in folder.glob(".epoch-*.new"):
        left.unlink()
    path = folder / f"epoch-{epoch:06d}.npz"
    unfinished = folder / f".{path.stem}.new"
    with unfinished.open("wb") as sink:
        numpy.savez(sink, **arrays)
        sink.flush()
        os.fsync(sink.fileno())
    unfinished.replace(path)
    # Those of later epochs are from a training that this one did not go on with.
    everything = sorted(folder.glob("epoch-*.npz"))
    kept = [other for other in everything if other <= path][-_KEPT_CHECKPOINTS:]
    for other in everything:
        if other not in kept:
            other.unlink()


def _variables(model: Any) -> dict[str, Any]:
    """Everything that an epoch changes, by a name that is the same in each process."""
    parts = {"model": model.variables, "optimizer": _of_optimizer(model), "random": _of_layers(model)}
    return {f"{part}-{index}": one for part, found in parts.items() for index, one in enumerate(found)}


def _of_optimizer(model: Any) -> list[Any]:
    """An optimizer's variables, which are made now where no step has been taken yet."""
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None:
        return []
    if hasattr(optimizer, "_create_all_weights"):  # Keras 2, up to 2.10
        optimizer._create_all_weights(model.trainable_variables)
    elif not getattr(optimizer, "built", getattr(optimizer, "_built", False)):
        optimizer.build(model.trainable_variables)
    variables = optimizer.variables
    found = list(variables() if callable(variables) else variables)
    # Keras 2 does not count these among the variables.
    scale = getattr(optimizer, "_loss_scale", None)
    beside = [getattr(optimizer, "learning_rate", None), *(getattr(scale, name, None) for name in _SCALE)]
    return found + [one for one in beside if hasattr(one, "assign") and hasattr(one, "numpy")]


_SCALE = ("current_loss_scale", "counter")


def _of_layers(model: Any) -> list[Any]:
    """The states of Keras 2's random layers, as dropout, where `enable_tf_random_generator` has given them some. Keras
    3 has them among the model's variables."""
    found = []
    for layer in model._flatten_layers() if hasattr(model, "_flatten_layers") else ():
        source: Any = getattr(layer, "_random_generator", None)
        if hasattr(source, "_maybe_init"):
            source._maybe_init()
        state = getattr(getattr(source, "_generator", None), "state", None)
        if hasattr(state, "assign"):
            found.append(state)
    return found
