"""Packages from the command line: the running lab's next kernel has them; a requirements file and the exports too."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from conftest import CommandLine
from rooms import kernel
from web_door import web_door

from ailab.access import kernel_client

pytestmark = pytest.mark.lab
SECONDS = 300


def test_added_imported_exported_and_removed(science: CommandLine, first_up: Any, tmp_path: Path) -> None:
    user, before = first_up["login"]["user"], science.json("status")["environment"]["id"]
    text = science.paths.settings.read_text()
    held = kernel(science, user)
    kernel_client.execute(web_door(science, user), held, "kept = 41")
    opened = {one["generation"]: one for one in science.json("status")["kernels"]}
    assert opened[before]["current"] and opened[before]["count"] >= 1
    added = science.json("env", "add", "humanize", timeout=SECONDS)
    assert added["added"] == ["humanize"] and added["moved"] == [] and added["generation"] != before
    cell = "import humanize; print(humanize.intcomma(12345))"
    assert kernel_client.run_cell(web_door(science, user), cell).strip() == "12,345"

    # The kernel that was open keeps its generation and its variables, and a new one gets the new one: both are shown.
    kernel(science, user)
    assert kernel_client.execute(web_door(science, user), held, "print(kept + 1)").strip() == "42"
    opened = {one["generation"]: one["current"] for one in science.json("status")["kernels"]}
    assert opened[before] is False and opened[added["generation"]] is True
    status = science.run("status").stdout
    assert f" in {before} (restart" in status and max(map(len, status.splitlines())) <= 80

    again = science.run("env", "add", "humanize", "numpy")
    assert again.stdout == "There already: humanize, numpy\n"
    refused = science.run("env", "add", "ipykernel>=7", timeout=SECONDS, check=False)
    assert (
        refused.returncode == 1 and "a bound of Python for science, cannot go together: ipykernel 7" in refused.stderr
    )

    file = tmp_path / "requirements.txt"
    file.write_text("tabulate\ngit+https://example.org/x\n")
    file.chmod(0o600)
    imported = science.json("env", "import", str(file), timeout=SECONDS)
    assert imported["packages"] == ["humanize", "tabulate"] and len(imported["left"]) == 1

    exported = science.run("env", "export").stdout
    assert "humanize==" in exported and "--hash=sha256:" in exported and "://" not in exported
    pylock = tomllib.loads(science.run("env", "export", "--format", "pylock", timeout=SECONDS).stdout)
    assert pylock["lock-version"] == "1.0" and "tabulate" in {one["name"] for one in pylock["packages"]}

    assert science.json("env", "lock", "--upgrade", "humanize", timeout=SECONDS)["moved"] == []
    gone = science.run("env", "remove", "seaborn", check=False)
    assert gone.returncode == 1 and "seaborn is not in [environment] packages." in gone.stderr
    removed = science.json("env", "remove", "humanize", "tabulate", timeout=SECONDS)
    assert removed["generation"] == before and science.paths.settings.read_text() == text
