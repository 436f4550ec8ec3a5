"""What the doctor tells of the GPU: the driver's own chain (test_resources_driver.py), as bad as lab.toml takes it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from patients import facts_of

from ailab import checkup
from ailab.doctor import gpu
from ailab.doctor.findings import Finding, Severity
from ailab.resources.detect import Gpu
from ailab.resources.driver import Driver, look, why_not
from ailab.settings import EnvironmentSection, Settings
from ailab.stacks import load_stack

OK, WARNING, ERROR = Severity.ok, Severity.warning, Severity.error
STACK = load_stack("tensorflow-2.9")
TESLA = Gpu(0, "Tesla T4", 16 * 2**30, "535.183.01", "7.5")
CLOSED = Driver(module="535.183.01", devices={"/dev/nvidia0": "EACCES"}, nvml="Insufficient Permissions")


def told(folder: Path, seen: Driver, wish: str = "auto") -> Finding:
    facts = facts_of(folder)
    settings = Settings(environment=EnvironmentSection(gpu=wish))  # type: ignore[arg-type]
    probes = replace(facts.probes, graphics=lambda: checkup.graphics_of(seen, STACK))
    (found,) = gpu.chain(replace(facts, settings=settings, probes=probes))
    return found


def test_no_gpu_is_no_fault_unless_one_is_required(tmp_path: Path) -> None:
    assert told(tmp_path, Driver(nvml="NVML Shared Library Not Found")).severity == OK
    required = told(tmp_path, Driver(), "required")
    assert required.severity == ERROR and 'gpu = "auto"' in required.remedy


def test_a_gpu_that_works(tmp_path: Path) -> None:
    found = told(tmp_path, Driver(gpus=(TESLA,), module="535.183.01", devices={"/dev/nvidia0": ""}))
    assert found.severity == OK and "Tesla T4 (16384 MiB" in found.message
    assert found.evidence == "NVIDIA 535.183.01; /dev/nvidia0: ok"


@pytest.mark.parametrize(
    "seen",
    [Driver(on_bus=True), Driver(on_bus=True, nouveau=True), CLOSED, Driver(gpus=(replace(TESLA, driver="440.1"),))],
    ids=["no driver", "nouveau", "closed", "too old for the stack"],
)
def test_a_gpu_that_cannot_be_used_is_as_bad_as_lab_toml_takes_it(tmp_path: Path, seen: Driver) -> None:
    assert STACK.cuda is not None
    expected = why_not(seen, STACK.cuda.driver)
    assert expected is not None
    found = told(tmp_path, seen)
    assert (found.severity, found.message, found.remedy) == (WARNING, *expected)
    assert told(tmp_path, seen, "required").severity == ERROR
    off = told(tmp_path, seen, "off")
    assert off.severity == OK and not off.remedy


def test_what_was_seen_is_the_evidence(tmp_path: Path) -> None:
    assert told(tmp_path, CLOSED).evidence == "NVIDIA 535.183.01; Insufficient Permissions; /dev/nvidia0: EACCES"


def test_this_machine_is_looked_at(tmp_path: Path) -> None:
    here, seen = facts_of(tmp_path).probes.graphics(), look()
    assert here.there == seen.is_there and len(here.gpus) == len(seen.gpus)
