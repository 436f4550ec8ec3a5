"""Writes down each Keras `fit` of a job or a notebook, and leads MLflow's client to the lab's server.

`sitecustomize` calls it when Keras, or MLflow, has been imported. No training waits for a network: what it reports is
written to a file, and the lab carries it to MLflow. It needs Python 3.8 and `ailab_progress` beside it, and never
raises into a training.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import os
import socket
import sys
import time
from typing import Any

import ailab_progress

_MOST_BYTES = 64 * 1024 * 1024
_LONGEST_VALUE = 500
# How long an import of MLflow waits for a server that is being started, and for the job's run.
_START_SECONDS = 30.0
_RUN_SECONDS = 5.0


def wrap_fit(owner: Any) -> None:
    """Have each call of `owner.fit` written down."""
    fit = owner.fit
    signature = inspect.signature(fit)

    @functools.wraps(fit)
    def noticed(self: Any, *args: Any, **kwargs: Any) -> Any:
        training = None
        try:
            bound = signature.bind(self, *args, **kwargs)
            training = _Training.begin(self, bound.arguments)
            if training is not None:
                bound.arguments["callbacks"] = training.beside(bound.arguments.get("callbacks"))
                args, kwargs = bound.args[1:], bound.kwargs
        except Exception:
            training = None
        if training is None:
            return fit(self, *args, **kwargs)
        with training:
            return fit(self, *args, **kwargs)

    owner.fit = noticed


class _Training:
    """One `fit`: its parameters, the metrics at the end of each epoch, and how it ended; a line each."""

    # How far the trainings of this process have come, and how many there were: a second fit of a job goes on in its
    # curve.
    reached = 0
    count = 0

    def __init__(self, path: str, base: int, is_own: bool) -> None:
        import fcntl

        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | (os.O_EXCL if is_own else 0)
        self._descriptor = os.open(path, flags, 0o600)
        if is_own:
            # Who reads it knows by the lock that this process lives.
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        self._base = base
        self._is_own = is_own

    @classmethod
    def begin(cls, model: Any, given: Any) -> _Training | None:
        """None where this process is not the one that reports: of several that train one model together, the first."""
        if not _reports():
            return None
        path, folder = os.environ.get("AILAB_TRAINING"), os.environ.get("AILAB_TRAININGS")
        cls.count += 1
        if path:
            training = cls(path, 0 if given.get("initial_epoch") else cls.reached, False)
        else:
            assert folder, "sitecustomize has looked"
            os.makedirs(folder, mode=0o700, exist_ok=True)
            training = cls(os.path.join(folder, f"training-{os.urandom(12).hex()}.jsonl"), 0, True)
            training.write({"training": _about(model, cls.count)})
        training.write({"fit": cls.count, "params": _params(model, given)})
        return training

    def beside(self, callbacks: Any) -> Any:
        """The callbacks of the person, and ours."""
        if hasattr(callbacks, "append") and not isinstance(callbacks, list):
            # A CallbackList, which has its model already.
            for one in self._ours(getattr(callbacks, "callbacks", [])):
                one.set_model(callbacks.model)
                one.set_params(callbacks.params)
                callbacks.append(one)
            return callbacks
        given = list(callbacks) if isinstance(callbacks, (list, tuple)) else [callbacks] if callbacks else []
        return [*given, *self._ours(given)]

    def _ours(self, given: Any) -> list[Any]:
        training = self

        class Noticed(ailab_progress._keras().callbacks.Callback):  # type: ignore[misc]
            def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
                training.epoch(epoch + 1, logs)

        shown = any(type(one).__qualname__ == "keras.<locals>.Progress" for one in given)
        wanted = bool(os.environ.get("AILAB_PROGRESS")) and not shown
        return [*([ailab_progress.keras()] if wanted else []), Noticed()]

    def epoch(self, epoch: int, logs: Any) -> None:
        with contextlib.suppress(Exception):
            numbers = {str(name): ailab_progress._number(value) for name, value in dict(logs or {}).items()}
            metrics = {name: number for name, number in numbers.items() if number is not None}
            _Training.reached = self._base + epoch
            self.write({"epoch": self._base + epoch, "metrics": metrics})

    def write(self, document: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):
            if os.fstat(self._descriptor).st_size < _MOST_BYTES:
                line = json.dumps({"t": round(time.time(), 3), **document}, allow_nan=False, separators=(",", ":"))
                os.write(self._descriptor, line.encode() + b"\n")

    def __enter__(self) -> _Training:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if self._is_own:
            stopped = kind is not None and not issubclass(kind, Exception)
            self.write({"ended": "done" if kind is None else "stopped" if stopped else "failed"})
        os.close(self._descriptor)


def _reports() -> bool:
    """Whether this process is the one of its group that tells: TF_CONFIG's chief, Horovod's rank 0."""
    if os.environ.get("HOROVOD_RANK", "0") != "0":
        return False
    try:
        config = json.loads(os.environ.get("TF_CONFIG") or "{}")
        task, cluster = config.get("task", {}), config.get("cluster", {})
        chief = next((name for name in ("chief", "master") if name in cluster), "worker")
        return not cluster or (task.get("type") == chief and int(task.get("index", 0)) == 0)
    except (ValueError, AttributeError, TypeError):
        return True


def _about(model: Any, count: int) -> dict[str, Any]:
    """What tells a training in a notebook from others. Jupyter's server tells its kernels the notebook's name."""
    notebook = os.path.splitext(os.path.basename(os.environ.get("JPY_SESSION_NAME", "")))[0]
    return {
        "t": round(time.time(), 3),
        "name": f"{notebook or getattr(model, 'name', '') or 'model'} #{count}",
        "user": os.environ.get("JUPYTERHUB_USER", ""),
        "folder": os.getcwd(),
        "kernel": str(os.getpid()),
        "python": sys.version.split()[0],
    }


_GIVEN = ("batch_size", "epochs", "steps_per_epoch", "initial_epoch", "validation_split", "validation_steps", "shuffle")
_DEFAULTS = {"epochs": 1, "initial_epoch": 0, "validation_split": 0.0, "shuffle": True}


def _params(model: Any, given: Any) -> dict[str, str]:
    """The training's parameters, by the names that MLflow's own autologging gives them."""
    found = {name: given.get(name, _DEFAULTS.get(name)) for name in _GIVEN}
    if found["batch_size"] is None and hasattr(given.get("x"), "shape"):
        found["batch_size"] = 32  # what Keras takes for arrays
    with contextlib.suppress(Exception):
        optimizer = model.optimizer
        settings = {"name": type(optimizer).__name__, **optimizer.get_config()}
        found.update({f"opt_{name}": value for name, value in settings.items()})
    with contextlib.suppress(Exception):
        found["loss"] = model.loss if isinstance(model.loss, str) else getattr(model.loss, "name", None)
    with contextlib.suppress(Exception):
        found.update(model_name=model.name, model_parameters=model.count_params())
    return {name: text for name, text in ((name, _text(value)) for name, value in found.items()) if text is not None}


def _text(value: Any) -> str | None:
    if isinstance(value, (bool, int, str)):
        return str(value)[:_LONGEST_VALUE]
    number = None if value is None or isinstance(value, (dict, list, tuple)) else ailab_progress._number(value)
    return None if number is None else str(number)


def lead_to_socket() -> None:
    """Have MLflow's client reach the lab's server through its socket: without a port or a token, also from within a
    container, which reaches no address of its machine."""
    folder, address = os.environ["AILAB_MLFLOW"], os.environ.get("MLFLOW_TRACKING_URI", "").rstrip("/")
    if not address:
        return
    server = os.path.join(folder, "mlflow.sock")
    _mount(address, server)
    # A server that is away costs its caller seconds, not minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    if _is_there(server, os.path.join(folder, "bell.sock")):
        _join_run()


def _mount(address: str, server: str) -> None:
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.connection import HTTPConnection
    from urllib3.connectionpool import HTTPConnectionPool

    class Connection(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.settimeout(self.timeout if isinstance(self.timeout, (int, float)) else None)
            sock.connect(server)
            return sock

    class Pool(HTTPConnectionPool):
        ConnectionCls = Connection

    class Adapter(HTTPAdapter):
        def get_connection(self, url: Any, proxies: Any = None) -> Any:
            return Pool("localhost", maxsize=4)

        def get_connection_with_tls_context(
            self, request: Any, verify: Any, proxies: Any = None, cert: Any = None
        ) -> Any:
            return self.get_connection(request.url)

        def request_url(self, request: Any, proxies: Any) -> str:
            return str(request.path_url)

    usual, adapter = requests.Session.get_adapter, Adapter()

    def get_adapter(self: Any, url: Any) -> Any:
        return adapter if f"{url}/".startswith(f"{address}/") else usual(self, url)

    requests.Session.get_adapter = get_adapter  # type: ignore[method-assign]


def _is_there(server: str, bell: str) -> bool:
    """Whether MLflow answers; where it does not run it is started, and waited for if it will."""
    if _answers(server):
        return True
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as rope:
        rope.settimeout(3.0)
        rope.connect(bell)
        if rope.recv(16).strip() != b"yes":
            return False
    deadline = time.monotonic() + _START_SECONDS
    while not _answers(server):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def _answers(server: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(server)
        except OSError:
            return False
    return True


def _join_run() -> None:
    """In a job `mlflow.start_run()` goes on with the job's own run, which the lab makes when the job has begun."""
    path, deadline = os.environ.get("AILAB_RUN"), time.monotonic() + _RUN_SECONDS
    while path and "MLFLOW_RUN_ID" not in os.environ and time.monotonic() < deadline:
        with contextlib.suppress(OSError, ValueError, KeyError), open(path) as source:
            known = json.load(source)
            os.environ.setdefault("MLFLOW_EXPERIMENT_ID", known["experiment"])
            os.environ["MLFLOW_RUN_ID"] = known["run"]
            return
        time.sleep(0.2)
