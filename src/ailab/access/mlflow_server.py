"""MLflow's server on a unix socket. Run by the Python of MLflow's own environment, which has no ailab.

python mlflow_server.py SOCKET FOLDER PATH_PREFIX
"""

import json
import os
import socket
import sys
import warnings

SOCKET, FOLDER, PREFIX = sys.argv[1:4]

# What `mlflow server` hands to its workers (mlflow.server.constants), which are one here: this process.
os.environ.update(
    {
        "_MLFLOW_SERVER_FILE_STORE": "sqlite:///" + os.path.join(FOLDER, "mlflow.db"),
        "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": os.path.join(FOLDER, "artifacts"),
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        "_MLFLOW_STATIC_PREFIX": PREFIX,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        # The portal has looked at who asks and from where: a name in a header says nothing on a unix socket.
        "MLFLOW_SERVER_ALLOWED_HOSTS": "*",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
    }
)
warnings.simplefilter("ignore")

# What makes the server run programs or call other machines by a visitor's word. None of it is about runs.
_CLOSED = {"assistant", "demo", "gateway", "jobs", "prompt-optimization", "scorer", "webhooks"}
_LONGEST = 1024 * 1024
# How its pages begin where nobody has chosen yet: with trainings, and without an assistant, which is closed.
_CHOICES = """<script>
for (const [key, value] of [["mlflow.workflowType_v1", '"machine_learning"'],
                            ["mlflow.assistant.fab.autoOpenedOnFirstLoad_v1", "true"]])
  if (localStorage.getItem(key) === null) localStorage.setItem(key, value);
</script>"""


class Guard:
    """What any logged-in person may ask for must not reach past MLflow's own folder: the server runs as the lab's
    account, which has the lab's secrets."""

    def __init__(self, app, page):
        self._app = app
        self._page = page.replace("<head>", "<head>" + _CHOICES, 1).encode()

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["method"] == "GET" and scope["path"] == PREFIX + "/":
            await _send(send, 200, "text/html; charset=utf-8", self._page)
            return
        parts = scope["path"][len(PREFIX) :].strip("/").split("/")
        noun = parts[parts.index("mlflow") + 1 : parts.index("mlflow") + 2] if "mlflow" in parts[:3] else parts[:1]
        if _CLOSED.intersection(noun) or not scope["path"].startswith(PREFIX + "/"):
            await _refuse(send, 404, "This lab's MLflow does not offer it.")
            return
        if parts[-2:] == ["experiments", "create"] and "mlflow" in parts[:3]:
            body = await _whole(receive)
            if body is None or _leads_out(body):
                await _refuse(send, 400, "This lab's MLflow keeps artifacts itself: leave artifact_location away.")
                return
            receive = _again(body, receive)
        await self._app(scope, receive, send)


def _leads_out(body):
    """Whether an experiment's artifacts would be read and written elsewhere on this machine."""
    try:
        location = json.loads(body).get("artifact_location") or "mlflow-artifacts:/"
    except (ValueError, AttributeError):
        return False
    return not str(location).startswith("mlflow-artifacts:")


async def _whole(receive):
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > _LONGEST or message["type"] == "http.disconnect":
            return None
        if not message.get("more_body"):
            return body


def _again(body, receive):
    told = False

    async def once():
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return once


async def _refuse(send, status, message):
    body = json.dumps({"error_code": "INVALID_PARAMETER_VALUE", "message": message}).encode()
    await _send(send, status, "application/json", body)


async def _send(send, status, kind, body):
    headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
    headers += [(b"x-content-type-options", b"nosniff"), (b"x-frame-options", b"SAMEORIGIN")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def listen():
    """A socket that only this account can open; it takes connections from now on, while MLflow still loads."""
    os.umask(0o077)
    if os.path.exists(SOCKET):
        os.unlink(SOCKET)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind(SOCKET)
    sock.listen(128)
    return sock


if __name__ == "__main__":
    os.umask(0o077)
    import uvicorn
    from mlflow.server import app as pages
    from mlflow.server.fastapi_app import app
    from mlflow.server.handlers import _get_tracking_store

    # Makes the database, or brings it up to date, before anybody waits for it.
    _get_tracking_store()
    with open(os.path.join(pages.static_folder, "index.html"), encoding="utf-8") as source:
        guarded = Guard(app, source.read())
    config = uvicorn.Config(guarded, log_level="warning", access_log=False, ws="none", proxy_headers=False)
    config.load()
    uvicorn.Server(config).run(sockets=[listen()])
