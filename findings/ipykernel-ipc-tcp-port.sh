#!/bin/sh
# ipykernel 7.4.0, jupyter_client 8.10.0, Python 3.11: a kernel whose transport is `ipc` still listens on a TCP port.
# Expected: with ipc sockets for all five channels, no TCP port is open.
# Seen: one listener on 127.0.0.1 at a random port. It belongs to iostream.IOPubThread, which takes the output of
# forked children there; each message carries a random key. No setting turns it off.
#   TCP listeners: 1, on 127.0.0.1
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check ipykernel==7.4.0 jupyter_client==8.10.0 psutil==7.2.2
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import psutil
from jupyter_client import KernelManager

kernel = KernelManager(transport="ipc", ip=f"{sys.prefix}/kernel")
kernel.start_kernel()
client = kernel.client()
client.start_channels()
try:
    client.wait_for_ready(timeout=60)
    process = psutil.Process(kernel.provisioner.pid)
    listeners = [one for one in process.net_connections("tcp") if one.status == psutil.CONN_LISTEN]
    addresses = sorted({one.laddr.ip for one in listeners})
    print(f"TCP listeners: {len(listeners)}, on {' '.join(addresses)}")
finally:
    client.stop_channels()
    kernel.shutdown_kernel(now=True)
sys.exit(not (len(listeners) == 1 and addresses == ["127.0.0.1"]))
PYTHON
