"""JupyterHub as a program of the lab."""

from __future__ import annotations

from ailab.access import lighter  # noqa: F401  before all that it keeps out

if __name__ == "__main__":
    from jupyterhub.app import main

    from ailab.access import hub_rules

    hub_rules.install()
    main()
