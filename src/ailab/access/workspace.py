"""A person's Jupyter server: JupyterHub's single-user server, which may start before the hub does."""

from __future__ import annotations

import asyncio
from typing import Any

from jupyterhub.httpclient import fetch
from jupyterhub.singleuser.extension import JupyterHubSingleUser

from ailab.waiting import wait_for_async

HUB_SECONDS = 120.0
_check_hub_version = JupyterHubSingleUser.check_hub_version


async def check_hub_version_when_up(self: Any) -> None:
    """Wait for the hub in short steps: `up` starts both at once, and JupyterHub itself would pause 2, 4, 8 s."""

    async def answers() -> bool:
        try:
            await fetch(self.hub_auth.api_url, **self.hub_http_client_opts)
        except asyncio.CancelledError:
            raise
        except Exception:  # whatever the HTTP client says of a hub that is not there yet
            return False
        return True

    await wait_for_async(answers, timeout=HUB_SECONDS, what="the hub", first=0.05, last=0.2)
    await _check_hub_version(self)


def main() -> None:
    # A subclass would do, but Jupyter finds an extension by the package of its class.
    JupyterHubSingleUser.check_hub_version = check_hub_version_when_up
    JupyterHubSingleUser.launch_instance()


if __name__ == "__main__":
    main()
