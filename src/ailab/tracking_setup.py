"""Installs MLflow's server. Run in the background by the daemon: `python -m ailab.tracking_setup LAB`."""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path

from ailab import files, provision
from ailab.access import tools
from ailab.errors import AilabError
from ailab.lab import Lab
from ailab.paths import private_folder


def problem_file(lab: Lab) -> Path:
    """Why MLflow could not be installed the last time; gone when it is."""
    return lab.paths.mlflow / "problem.json"


def main() -> None:
    os.nice(10)
    lab = Lab.open(Path(sys.argv[1]))
    private_folder(lab.paths.mlflow)
    try:
        tools.install_mlflow(lab.machine, provision.uv_of(lab))
    except (AilabError, OSError) as error:
        known = error.body()["error"] if isinstance(error, AilabError) else {"message": str(error), "remedy": ""}
        files.replace(problem_file(lab), json.dumps({"message": known["message"], "remedy": known.get("remedy", "")}))
        traceback.print_exc()
        sys.exit(1)
    problem_file(lab).unlink(missing_ok=True)


if __name__ == "__main__":
    main()
