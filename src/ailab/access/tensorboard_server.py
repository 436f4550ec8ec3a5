"""TensorBoard on a unix socket. Run by the Python of TensorBoard's own environment, which has no ailab.

python tensorboard_server.py SOCKET LOGDIR PATH_PREFIX

It listens at once and is loaded when somebody comes, or when the lab has long started: those who wait for the lab go
first, and who comes meanwhile is served as soon as it is loaded.
"""

import os
import select
import signal
import socket
import sys

SOCKET, LOGDIR, PREFIX = sys.argv[1:4]
LOADED_AFTER_SECONDS = 20.0
# Its fast loader is a gRPC server on a port of loopback, where any account of the machine could read the curves.
SETTINGS = ["--logdir", LOGDIR, "--path_prefix", PREFIX, "--reload_interval", "5", "--load_fast", "false"]


def listen() -> socket.socket:
    """At a socket that only this account can open."""
    os.umask(0o077)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    if os.path.exists(SOCKET):
        os.unlink(SOCKET)
    sock.bind(SOCKET)
    sock.listen(64)
    return sock


def serve(sock: socket.socket) -> None:
    from tensorboard import default, program
    from werkzeug.serving import make_server

    class UnixServer(program.TensorBoardServer):
        def __init__(self, wsgi_app, flags):
            self.server = make_server(f"unix://{SOCKET}", 0, wsgi_app, threaded=True, fd=sock.fileno())

        def serve_forever(self):
            self.server.serve_forever()

        def get_url(self):
            return f"http://localhost:0{PREFIX}/"  # only noted in its info file, which wants a port

    board = program.TensorBoard(default.get_plugins(), server_class=UnixServer)
    board.configure(argv=["tensorboard", *SETTINGS])
    board.main()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    listening = listen()
    select.select([listening], [], [], LOADED_AFTER_SECONDS)
    serve(listening)
