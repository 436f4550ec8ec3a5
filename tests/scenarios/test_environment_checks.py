"""`env verify`, `fingerprint`, `compare`, `list`, `diff` and `gc` as a person types them, on a lab that is up."""

from __future__ import annotations

import json

import pytest
from conftest import CommandLine

pytestmark = pytest.mark.lab


def test_a_lab_that_is_up_is_what_its_lock_says(science: CommandLine) -> None:
    document = science.json("env", "verify", "--proof")
    assert document["ok"] and document["lab_lock"] is True and document["files"] > 5000
    assert document["proof"]["accuracy"] > 0.9 and {"solve", "learn", "draw"} <= document["proof"]["seconds"].keys()
    said = science.run("env", "verify")
    assert "is what its lock says" in said.stdout and "Comparing every file" in said.stderr


def test_a_machine_is_the_same_as_itself_and_not_as_another(science: CommandLine) -> None:
    text = science.run("env", "fingerprint", "--json").stdout
    file = science.lab / "there.json"
    file.write_text(text)
    file.chmod(0o644)
    assert science.run("env", "compare", str(file)).stdout == "same\n"
    other = json.loads(text)
    other["packages"]["numpy"]["version"] = "1.0"
    other["glibc"] = "2.17"
    file.write_text(json.dumps(other))
    differs = science.run("env", "compare", str(file), check=False)
    assert (
        differs.returncode == 1
        and "numpy" in differs.stdout
        and "2.17" in differs.stdout
        and "Error" not in differs.stderr
    )
    document = science.run("env", "compare", str(file), "--json", check=False)
    assert document.returncode == 1
    assert [one["name"] for one in json.loads(document.stdout)["differences"]] == ["numpy", "glibc"]
    refused = science.run("env", "compare", str(science.lab / "lab.toml"), check=False)
    assert refused.returncode == 2 and "is no fingerprint" in refused.stderr
    assert science.run("env", "compare", str(science.lab / "nowhere"), check=False).returncode == 2
    file.unlink()


def test_what_the_lab_uses_would_not_be_taken_away(science: CommandLine) -> None:
    (mine,) = (one for one in science.json("env", "list") if one["current"])
    assert str(science.lab) in mine["labs"] and mine["why"] == "lab.toml" and mine["size_bytes"] > 10**8
    collected = science.json("env", "gc", "--all", "--dry-run")
    assert mine["id"] not in [one["id"] for one in collected["removed"]]
    assert {"id": mine["id"], "reason": "current", "who": str(science.lab)} in collected["kept"]
    assert mine["id"] in [one["id"] for one in science.json("env", "list")]
    assert science.run("env", "diff", mine["id"]).stdout == "no difference\n"
