"""TensorBoard on a unix socket. Run by the Python of TensorBoard's own environment, which has no ailab.

python tensorboard_server.py SOCKET LOGDIR PATH_PREFIX
"""

import os
import signal
import socket
import sys

from tensorboard import default, program
from werkzeug.serving import make_server


class UnixServer(program.TensorBoardServer):
    """TensorBoard's application behind a unix socket that only this account can open."""

    def __init__(self, wsgi_app, flags):
        os.umask(0o077)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        if os.path.exists(SOCKET):
            os.unlink(SOCKET)
        sock.bind(SOCKET)
        sock.listen(64)
        self.server = make_server(f"unix://{SOCKET}", 0, wsgi_app, threaded=True, fd=sock.detach())

    def serve_forever(self):
        self.server.serve_forever()

    def get_url(self):
        return f"http://localhost:0{PREFIX}/"  # only noted in its info file, which wants a port


SOCKET, LOGDIR, PREFIX = sys.argv[1:4]
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
board = program.TensorBoard(default.get_plugins(), server_class=UnixServer)
# Its fast loader is a gRPC server on a port of loopback, where any account of the machine could read the curves.
SETTINGS = ["--logdir", LOGDIR, "--path_prefix", PREFIX, "--reload_interval", "5", "--load_fast", "false"]
board.configure(argv=["tensorboard", *SETTINGS])
board.main()
