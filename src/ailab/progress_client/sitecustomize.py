"""Python runs this at its start, where ailab's client is on PYTHONPATH: trainings are noticed without a line of code,
and frameworks are imported sooner.

Nothing is imported here: what is to be done waits until a framework, Keras or MLflow, is imported by whoever uses it.
Whatever goes wrong goes wrong in silence, and costs the person nothing but the noticing, which AILAB_AUTOLOG=0 turns
off.
"""

from __future__ import annotations

import gc
import os
import sys

# What is large: nearly all that it makes while it is loaded stays, and looking for garbage meanwhile would take a
# quarter of that time.
LARGE = ("tensorflow", "torch", "jax", "keras", "ipykernel.kernelapp")

# What has `fit`: Keras 2 in TensorFlow up to 2.12, in later ones, as tf_keras; Keras 3 on each of its frameworks.
FITS = {
    "keras.engine.training": "Model",
    "keras.src.engine.training": "Model",
    "tf_keras.src.engine.training": "Model",
    "keras.src.backend.tensorflow.trainer": "TensorFlowTrainer",
    "keras.src.backend.jax.trainer": "JAXTrainer",
    "keras.src.backend.torch.trainer": "TorchTrainer",
}


class _Watcher:
    """A finder that finds nothing itself: it has something done when a module that others find is loaded."""

    def __init__(self, wanted):
        self._wanted = set(wanted)

    def find_spec(self, name, path=None, target=None):
        if name not in self._wanted:
            return None
        self._wanted.discard(name)
        for finder in sys.meta_path:
            find = None if finder is self else getattr(finder, "find_spec", None)
            spec = find(name, path, target) if find is not None else None
            if spec is not None:
                if hasattr(spec.loader, "exec_module"):
                    (_load_without_looking if name in LARGE else _notice)(spec.loader)
                return spec
        return None


def _load_without_looking(loader):
    load = loader.exec_module

    def exec_module(module):
        looked = gc.isenabled()
        gc.disable()
        try:
            load(module)
        finally:
            if looked:
                gc.enable()

    loader.exec_module = exec_module


def _notice(loader):
    load = loader.exec_module

    def exec_module(module):
        load(module)
        try:
            import ailab_trainings

            if module.__name__ == "mlflow":
                ailab_trainings.lead_to_socket()
            else:
                ailab_trainings.wrap_fit(getattr(module, FITS[module.__name__]))
        except Exception:  # noqa: S110  a training is worth more than our notice of it
            pass

    loader.exec_module = exec_module


def _watched():
    """What is to be noticed, which is nothing outside of a lab's task, and what is large."""
    wants = os.environ.get("AILAB_AUTOLOG", "1").lower() not in ("0", "false", "off", "no")
    writes = os.environ.get("AILAB_TRAINING") or os.environ.get("AILAB_TRAININGS")
    return [*LARGE, *(FITS if wants and writes else ()), *(["mlflow"] if os.environ.get("AILAB_MLFLOW") else [])]


def _chain():
    """The environment's own sitecustomize, whose place this one has taken."""
    from importlib.machinery import PathFinder

    here = __file__.rpartition("/")[0]
    spec = PathFinder.find_spec("sitecustomize", [place for place in sys.path if place.rstrip("/") != here])
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(sys.modules["sitecustomize"])


sys.meta_path.insert(0, _Watcher(_watched()))
_chain()
