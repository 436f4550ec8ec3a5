"""Fingerprints: equal where nothing differs, and each difference by its name; two generations side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_environments_build import build_light

from ailab.environments.changes import changes
from ailab.environments.fingerprint import (
    Difference,
    Fingerprint,
    compare,
    cpu_features,
    fingerprint,
    read_fingerprint,
)
from ailab.environments.generations import Generation
from ailab.errors import UsageError
from ailab.paths import LabPaths, MachinePaths

ONE = {
    "format": 1,
    "environment": "tensorflow-2.9-py310-e106f151",
    "lock": "a" * 64,
    "interpreter": {
        "implementation": "CPython",
        "version": "3.10.13",
        "build": "main May 20 2025 10:00:00",
        "compiler": "GCC 12.2.0",
        "abi": "cpython-310-x86_64-linux-gnu",
    },
    "packages": {"numpy": {"version": "1.23.5", "content": "aa"}, "six": {"version": "1.17.0", "content": "bb"}},
    "cuda": {"nvidia-cudnn-cu11": "8.6.0.163"},
    "driver": "535.104.05",
    "gpus": [{"name": "NVIDIA T4", "compute_capability": "7.5"}],
    "cpu_features": ["avx", "avx2"],
    "glibc": "2.36",
    "platform": "linux-x86_64",
}


def changed(*keys: str, to: Any) -> Fingerprint:
    """ONE with another value at `keys`; None takes it away."""
    document = json.loads(json.dumps(ONE))
    inner = document
    for key in keys[:-1]:
        inner = inner[key]
    if to is None:
        del inner[keys[-1]]
    else:
        inner[keys[-1]] = to
    return Fingerprint.model_validate(document)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> MachinePaths:
    return MachinePaths(tmp_path_factory.mktemp("machine"))


@pytest.fixture(scope="module")
def built(machine: MachinePaths) -> Generation:
    return build_light(machine, LabPaths(machine.home), "cycler", "packaging")


def test_two_builds_of_one_lock_have_one_fingerprint(built: Generation, tmp_path: Path) -> None:
    """In another place, from another cache: what the shebangs of scripts say is no difference."""
    again = build_light(MachinePaths(tmp_path / "elsewhere"), LabPaths(tmp_path), "cycler", "packaging")
    here, there = (fingerprint(one, driver="", gpus=[]) for one in (built, again))
    assert compare(here, there) == [] and here.digest() == there.digest()
    assert here.packages["cycler"].version == built.packages["cycler"] and len(here.packages["cycler"].content) == 16
    assert here.interpreter.version == built.python and here.platform.startswith("linux-") and here.glibc


def test_it_survives_the_way_to_another_machine(built: Generation) -> None:
    here = fingerprint(built, driver="535.1", gpus=[("NVIDIA T4", "7.5")])
    there = read_fingerprint(json.dumps(here.to_json(), indent=2), "there.json")
    assert there == here and there.digest() == here.to_json()["digest"]


@pytest.mark.parametrize(
    ("keys", "to", "difference"),
    [
        (
            ("interpreter", "build"),
            "main Jan 1 2026",
            ("interpreter", "build", ONE["interpreter"]["build"], "main Jan 1 2026"),
        ),
        (("interpreter", "version"), "3.10.14", ("interpreter", "version", "3.10.13", "3.10.14")),
        (("packages", "numpy", "version"), "1.22.4", ("package", "numpy", "1.23.5", "1.22.4")),
        (("packages", "six"), None, ("package", "six", "1.17.0", None)),
        (("packages", "wrapt"), {"version": "1.14"}, ("package", "wrapt", None, "1.14")),
        (("packages", "numpy", "content"), "cc", ("build", "numpy 1.23.5", "aa", "cc")),
        (("cuda", "nvidia-cudnn-cu11"), "8.7", ("cuda", "nvidia-cudnn-cu11", "8.6.0.163", "8.7")),
        (("driver",), "450.80.02", ("driver", "NVIDIA", "535.104.05", "450.80.02")),
        (("driver",), "", ("driver", "NVIDIA", "535.104.05", None)),
        (("gpus",), [], ("gpu", "0", "NVIDIA T4 (7.5)", None)),
        (("cpu_features",), ["avx"], ("cpu", "avx2", "yes", None)),
        (("glibc",), "2.31", ("system", "glibc", "2.36", "2.31")),
        (("platform",), "linux-aarch64", ("system", "platform", "linux-x86_64", "linux-aarch64")),
    ],
)
def test_each_difference_is_named(keys: tuple[str, ...], to: Any, difference: tuple[str, str, Any, Any]) -> None:
    here, there = Fingerprint.model_validate(ONE), changed(*keys, to=to)
    assert compare(here, there) == [Difference(*difference)]
    assert here.digest() != there.digest()


def test_which_generation_it_was_and_unknown_contents_are_no_difference() -> None:
    here = Fingerprint.model_validate(ONE)
    for keys, to in ((("environment",), "other"), (("lock",), "b" * 64), (("packages", "numpy", "content"), "")):
        assert compare(here, changed(*keys, to=to)) == []


def test_builds_for_another_platform_are_not_listed_one_by_one() -> None:
    document = json.loads(json.dumps(ONE)) | {"platform": "linux-aarch64"}
    document["packages"]["numpy"]["content"] = "other"
    assert [one.kind for one in compare(Fingerprint.model_validate(ONE), Fingerprint.model_validate(document))] == [
        "system"
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "Expecting value"),
        ("[]", "is no fingerprint"),
        ("{}", "format: Field required"),
        (json.dumps({**ONE, "gpus": 3}), "gpus: "),
        (json.dumps({**ONE, "format": 2}), "newer ailab"),
        ("[" * 100_000, "is no fingerprint"),
    ],
)
def test_what_is_no_fingerprint_is_refused(text: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AILAB_LANG", "en")
    with pytest.raises(UsageError, match=said) as caught:
        read_fingerprint(text, "there.json")
    assert "there.json" in caught.value.message and caught.value.remedy


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*ONE, "x"]), inner, max_size=5),
)


@given(JSON)
def test_any_json_is_read_or_refused(value: Any) -> None:
    try:
        read_fingerprint(json.dumps(value), "there.json")
    except UsageError as error:
        assert error.remedy


def test_cpu_features_of_both_kinds_of_machine() -> None:
    assert cpu_features("processor : 0\nflags\t\t: fpu avx avx2 hypervisor\nprocessor : 1\nflags : fpu\n") == [
        "avx",
        "avx2",
    ]
    assert cpu_features("Features\t: fp asimd crc32 sve\n") == ["asimd", "sve"]
    assert cpu_features("") == []


def generation(name: str, python: str, packages: dict[str, str], lock: str) -> Generation:
    return Generation(name, "science", "", python, lock, "", 0, packages, "")


def test_changes_between_two_generations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AILAB_LANG", "en")
    before = generation("one", "3.11.2", {"a": "1", "b": "1", "c": "1"}, "x" * 64)
    after = generation("two", "3.12.1", {"b": "2", "c": "1", "d": "4", "e": "5"}, "y" * 64)
    found = changes(before, after)
    assert found.lines() == ["+ d 4", "+ e 5", "- a 1", "~ b 1 -> 2", "~ Python 3.11.2 -> 3.12.1"]
    assert found.summary() == "+ d 4, + e 5, - a 1, ~ b 1 -> 2 and 1 more"
    assert found.lock == ("x" * 64, "y" * 64) and json.loads(json.dumps(found.to_json()))["moved"] == {"b": ["1", "2"]}
    same = changes(before, before)
    assert same.lines() == [] and same.summary() == "" and same.lock is None
