"""Python runs this at its start, where ailab's client is on PYTHONPATH: trainings are noticed without a line of code.

Nothing is imported here: what is to be done waits until Keras, or MLflow, is imported by whoever uses it. Whatever goes
wrong goes wrong in silence, and costs the person nothing but the noticing. AILAB_AUTOLOG=0 turns that off.
"""

from __future__ import annotations

import os
import sys

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
    """A finder that finds nothing itself: it has something done when a module that others find has been loaded."""

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
                    _notice(spec.loader)
                return spec
        return None


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
    """What is to be noticed; nothing outside of a lab's task."""
    wants = os.environ.get("AILAB_AUTOLOG", "1").lower() not in ("0", "false", "off", "no")
    writes = os.environ.get("AILAB_TRAINING") or os.environ.get("AILAB_TRAININGS")
    return [*(FITS if wants and writes else ()), *(["mlflow"] if os.environ.get("AILAB_MLFLOW") else [])]


def _chain():
    """The environment's own sitecustomize, whose place this one has taken."""
    from importlib.machinery import PathFinder

    here = __file__.rpartition("/")[0]
    spec = PathFinder.find_spec("sitecustomize", [place for place in sys.path if place.rstrip("/") != here])
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(sys.modules["sitecustomize"])


if _watched():
    sys.meta_path.insert(0, _Watcher(_watched()))
_chain()
