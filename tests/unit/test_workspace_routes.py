"""Where workspaces listen: at a socket in a folder of its own, whatever the user's name; and how the hub finds it."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from conftest import reachable_folder
from jupyterhub import orm
from jupyterhub.objects import Server
from patients import a_lab
from strangers import as_stranger, needs_stranger

from ailab.access.services import socket_url
from ailab.access.spawner import LabSpawner
from ailab.access.workspace_client import WorkspaceServer
from ailab.containers import workspace_of
from ailab.lab import Lab
from ailab.paths import GROUP_FOLDER, LabPaths, private_folder
from ailab.runtimes import container
from ailab.runtimes.base import Mount
from ailab.runtimes.process import ProcessRuntime

NAMES = [
    "li",
    "a" * 32,
    "a" * 33,
    "Ada",
    "ada",
    "王小明",
    "王 小明",
    "../../x",
    ".",
    "a/b",
    "a%2fb",
    "é" * 200,
    "\udcff",
    "",
]
# As the hub makes them for a user.
HUBS = {
    "JUPYTERHUB_SERVICE_PREFIX": "/user/li/",
    "JUPYTERHUB_SERVICE_URL": "http://127.0.0.1:36349/user/li/",
    "JUPYTERHUB_API_TOKEN": "its own",
}


@pytest.mark.parametrize("root", ["/srv/lab", "/srv/" + "x" * 29, "/srv/" + "x" * 200, "/home/Ada/实验"])
def test_each_name_has_a_folder_of_its_own_that_fits_a_socket_and_a_url(root: str) -> None:
    lab = LabPaths(Path(root))
    places = [lab.workspace_socket(name) for name in NAMES]
    assert len({place.parent for place in places}) == len(NAMES)
    for place in places:
        assert place.parent.parent == lab.run / "workspaces" and ".." not in place.parts
        assert len(os.fsencode(place)) <= 107
        url = urlsplit(socket_url(place) + "/user/x/")
        assert unquote(url.hostname or "") == unquote(url.netloc) == str(place), "lower case survives every parser"


def test_a_workspace_has_no_port_and_a_folder_for_its_account_and_group(tmp_path: Path) -> None:
    lab = Lab.open(a_lab(tmp_path / "lab").root)
    spec = workspace_of(lab, "li", HUBS)
    place = lab.paths.workspace_socket("li")
    assert spec.ports == (str(place),)
    assert spec.environment["JUPYTERHUB_SERVICE_URL"] == f"{socket_url(place)}/user/li/"
    seen = place.parent.stat()
    assert (seen.st_uid, seen.st_gid, stat.S_IMODE(seen.st_mode)) == (os.geteuid(), os.getegid(), GROUP_FOLDER)
    assert GROUP_FOLDER & stat.S_IRWXO == 0
    assert workspace_of(lab, "li", spec.environment) == spec, "started again it stays the same"


@needs_stranger
@pytest.mark.root
def test_only_the_labs_group_can_connect() -> None:
    with reachable_folder() as folder:
        lab = Lab.open(a_lab(folder / "lab").root)
        place = lab.paths.workspace_socket("li")
        workspace_of(lab, "li", HUBS)
        # As if each person had an account, which has to come this far.
        for above in (lab.paths.root, lab.paths.state, lab.paths.run, place.parent.parent):
            above.chmod(0o711)
        os.chown(place.parent, -1, 54321)
        place.parent.chmod(GROUP_FOLDER)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(place))
            place.chmod(0o660)
            listener.listen()
            connect = f"import socket; socket.socket(socket.AF_UNIX).connect({str(place)!r}); print('connected')"
            assert as_stranger(connect).endswith("PermissionError: [Errno 13] Permission denied")
            assert as_stranger(connect, group=54321) == "connected"


def spawner_of(lab: LabPaths, row: orm.Server) -> LabSpawner:
    made = LabSpawner(lab_root=str(lab.root), user=SimpleNamespace(name="li"), hub=None)
    made._server = Server.from_orm(row)
    return made


def test_the_hub_is_led_to_the_socket_whatever_its_database_says(tmp_path: Path) -> None:
    lab = LabPaths(Path("/srv/lab"))
    place = lab.workspace_socket("li")
    row = orm.Server(proto="http", ip="127.0.0.1", port=36349, base_url="/user/li/", cookie_name="cookie")
    for _start in ("from an older ailab", "of a hub that starts again"):
        spawner = spawner_of(lab, row)
        spawner.route_to_socket()
        assert spawner.server.host == socket_url(place), "JupyterHub itself would add a port"
        assert spawner.server.url == f"{socket_url(place)}/user/li/"
        assert (row.proto, unquote(row.ip), row.port) == ("http+unix", str(place), 80)


def test_a_person_is_sent_no_token_but_their_servers_own(tmp_path: Path) -> None:
    lab = Lab.open(a_lab(tmp_path / "lab").root)
    spec = workspace_of(lab, "li", HUBS)
    runtime = ProcessRuntime(lab.paths.tasks)
    sleeps: dict[str, Any] = spec.to_json() | {"command": ("sleep", "600")}
    try:
        runtime.start(type(spec).from_json(sleeps))
        server = WorkspaceServer.of(runtime, "li")
        assert server.headers["Authorization"] == "token its own" and server.socket_path == Path(str(spec.ports[0]))
        assert "its own" not in repr(server)
    finally:
        runtime.stop(spec.id, grace=0)


def test_a_file_of_a_container_is_found_on_this_machine() -> None:
    mounts = (Mount("/srv/li", "/lab"), Mount("", "/lab/.ailab/run"), Mount("/srv/s", "/lab/.ailab/run/workspaces/li"))
    assert container.outside(mounts, "/lab/.ailab/run/workspaces/li/j.sock") == "/srv/s/j.sock"
    assert container.outside(mounts, "/lab/notebooks") == "/srv/li/notebooks"
    assert container.outside(mounts, "/lab/.ailab/run/kernels") is None, "it is in the container's memory"
    assert container.outside(mounts, "/laboratory") is None


def test_a_folder_of_another_account_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="belongs to another account"):
        (tmp_path / "link").symlink_to(tmp_path)
        private_folder(tmp_path / "link", GROUP_FOLDER)
