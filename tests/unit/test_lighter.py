"""What the hub and the workspaces leave out at their start, and that they are whole without it."""

from __future__ import annotations

import subprocess
import sys


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_workspace_has_no_hub_and_no_database_in_it() -> None:
    out = run(
        "from ailab.access import workspace\n"
        "workspace.leave_out_the_hub()\n"
        "import sys\n"
        "import jupyterhub.singleuser.extension, jupyterlab.labapp\n"
        "print([name for name in ('sqlalchemy.orm', 'alembic', 'jupyterhub.user') if name in sys.modules])\n"
    )
    assert out == "[]"


def test_the_hub_still_has_its_database() -> None:
    out = run(
        "from ailab.access import lighter\n"
        "from jupyterhub import orm\n"
        "make = orm.new_session_factory('sqlite:///:memory:')\n"
        "with make() as session: print(session.query(orm.User).count())\n"
    )
    assert out.endswith("0")


def test_once_they_have_started_garbage_is_looked_for_and_certificates_are_checked() -> None:
    out = run(
        # The moment comes when the test says so, not after seconds, which the imports may take on a busy machine.
        "import gc, ssl, threading\n"
        "started = threading.Event()\n"
        "def wait_and(work): assert started.wait(60); work()\n"
        "threading.Timer = lambda _seconds, work: threading.Thread(target=wait_and, args=(work,))\n"
        "from ailab.access import lighter\n"
        "import aiohttp.connector\n"
        "made = [aiohttp.connector._SSL_CONTEXT_VERIFIED, ssl.create_default_context()]\n"
        "print(gc.isenabled(), *(len(one.get_ca_certs()) for one in made))\n"
        "started.set()\n"
        "lighter._started.join(60)\n"
        "made.append(ssl.create_default_context())\n"
        "print(gc.isenabled(), len({len(one.get_ca_certs()) for one in made}), made[0].get_ca_certs() != [])\n"
    )
    assert out.splitlines() == ["False 0 0", "True 1 True"]
    assert 0 < float(run("from ailab.access import lighter; print(lighter._started.interval)")) <= 60
