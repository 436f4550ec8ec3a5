"""A person's Jupyter server: JupyterHub's single-user server, which may start before the hub does."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from ailab.access import lighter  # noqa: F401  before all that it keeps out


async def no_check(self: Any) -> None:
    """JupyterHub's server asks the hub for its version before it listens, while our hub, which `up` starts at the same
    time, waits for the server to listen. Both are of the same installation, so there is nothing to ask."""


def configure() -> None:
    """Our settings, and other defaults than JupyterLab's own: no questions about news, and the lab's language. They
    stand beside this file, wherever that is where the server runs."""
    here = Path(__file__).parent
    # For kernels and terminals: what asks for jobs.
    os.environ["PYTHONPATH"] = str(here.parent / "progress_client")
    sys.argv.insert(1, f"--config={here / 'workspace_config.py'}")
    defaults = [str(here / "jupyterlab" / name) for name in (os.environ["AILAB_LANGUAGE"], "all")]
    os.environ["JUPYTER_CONFIG_PATH"] = os.pathsep.join(defaults)


def leave_out_the_hub() -> None:
    """The single-user server would load the hub's own pages and its database, of which it needs one class each, and
    those only to see that nothing it meets is of them: a third of its start, and 35 MB of each workspace."""
    parts = ("jupyterhub.orm", "jupyterhub.handlers", "jupyterhub.handlers.pages", "sqlalchemy", "sqlalchemy.exc")
    for name in parts:
        sys.modules[name] = ModuleType(name)
    absent: dict[str, tuple[str, Any]] = {
        "jupyterhub.handlers.pages": ("HealthCheckHandler", type("HealthCheckHandler", (), {})),
        "sqlalchemy": ("func", None),
        "sqlalchemy.exc": ("SQLAlchemyError", type("SQLAlchemyError", (Exception,), {})),
    }
    for name, (word, value) in absent.items():
        setattr(sys.modules[name], word, value)


def main() -> None:
    configure()
    leave_out_the_hub()
    from jupyterhub.singleuser.extension import JupyterHubSingleUser
    from tornado.web import RequestHandler

    from ailab.access.cookies import keep_cookies_here

    keep_cookies_here(RequestHandler)
    # A subclass would do, but Jupyter finds an extension by the package of its class.
    JupyterHubSingleUser.check_hub_version = no_check
    JupyterHubSingleUser.launch_instance()


if __name__ == "__main__":
    main()
