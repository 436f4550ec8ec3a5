"""The whole proof of TensorFlow's stack, in its own kernel, on every Python of the stack, from the one shipped lock."""

from __future__ import annotations

from pathlib import Path

import pytest

from ailab.environments import lock
from ailab.environments.generations import Generation, Generations
from ailab.environments.interpreters import Interpreter, candidates, examine
from ailab.environments.uv import Uv
from ailab.environments.verification import prove, verify
from ailab.errors import AilabError
from ailab.paths import LabPaths, MachinePaths, private_folder
from ailab.settings import MirrorsSection
from ailab.stacks import Stack, load_stack

pytestmark = pytest.mark.tensorflow
STACK = load_stack("tensorflow-2.9")
STEPS = {"train", "tensorboard", "save SavedModel", "save HDF5", "load SavedModel", "load HDF5", "go on training"}
SECONDS = 60


@pytest.fixture(scope="module")
def machine(own_machine: Path) -> MachinePaths:
    return MachinePaths(own_machine)


@pytest.fixture
def lab(tmp_path: Path) -> LabPaths:
    paths = LabPaths(tmp_path / "lab")
    for folder in paths.private_folders:
        private_folder(folder)
    return paths


def interpreter(minor: str, machine: MachinePaths) -> Interpreter:
    for program in candidates(minor, machine.pythons, Path.home()):
        found = examine(program)
        if found is not None and found.minor == minor:
            return found
    pytest.skip(f"this machine has no Python {minor}: neither on PATH nor from pyenv or uv")


def built(minor: str, machine: MachinePaths, lab: LabPaths) -> Generation:
    shipped = lock.read_lock(STACK.shipped_lock)
    assert shipped is not None
    uv = Uv(machine, MirrorsSection())
    python = interpreter(minor, machine)
    return Generations(machine, lab).build(STACK, shipped, python, uv, lambda _text: None)[0]


# The check has the oldest Python and the newest, ./check --long those between as well.
BETWEEN = STACK.pythons[1:-1]


@pytest.mark.parametrize(
    "minor", [pytest.param(minor, marks=pytest.mark.long if minor in BETWEEN else ()) for minor in STACK.pythons]
)
def test_the_whole_proof_passes(machine: MachinePaths, lab: LabPaths, minor: str) -> None:
    made = built(minor, machine, lab)
    found = verify(made)
    assert found.ok, found
    document = prove(made, STACK, lab)
    assert document["tensorflow"].startswith("2.9.") and document["python"] == made.python
    assert document["seconds"].keys() == STEPS and document["accuracy"] > 0.9
    assert sum(document["seconds"].values()) < SECONDS
    assert verify(made).ok, "the proof leaves nothing behind"
    assert not list(lab.logs.rglob("*tfevents*"))


class Tampered(Stack):
    """The stack with one line of its whole proof changed, so that a step of it must fail."""

    def whole_proof_code(self) -> str:
        code = super().whole_proof_code()
        assert code.count(BREAK[0]) == 1
        return code.replace(*BREAK)


# As if HDF5 had saved other weights than those of the model.
BREAK = (
    'again = step("load HDF5", lambda: tf.keras.models.load_model(hdf5))',
    'again = step("load HDF5", lambda: make_model())',
)


def test_a_model_that_comes_back_another_one_fails_the_proof(machine: MachinePaths, lab: LabPaths) -> None:
    made = built(STACK.pythons[0], machine, lab)
    with pytest.raises(AilabError, match="proof failed") as caught:
        prove(made, Tampered.model_validate(STACK.model_dump()), lab)
    assert "ok load HDF5" in caught.value.detail and "AssertionError" in caught.value.detail
