"""The shipped stacks: data that says why, and proofs that say what they found."""

from __future__ import annotations

import ast

import pytest
from packaging.requirements import Requirement

from ailab.errors import UsageError
from ailab.stacks import list_stacks, load_stack


@pytest.mark.parametrize("name", list_stacks())
def test_every_bound_names_the_error_that_it_prevents(name: str) -> None:
    stack = load_stack(name)
    for bound in stack.bounds:
        assert Requirement(bound.requirement).specifier and len(bound.reason) > 20
    assert stack.proof_code().rstrip().endswith(")")
    for code in (stack.proof_code(), stack.whole_proof_code()):
        ast.parse(code, feature_version=(3, 8))


def test_the_bounds_of_tensorflow_keep_out_what_breaks_it() -> None:
    parsed = [Requirement(text) for text in load_stack("tensorflow-2.9").short_constraints]
    bounds = {one.name: one.specifier for one in parsed}
    for name, breaking in (("numpy", "1.24.0"), ("numpy", "2.2.6"), ("protobuf", "4.21.0"), ("keras", "2.10.0"),
                           ("setuptools", "82.0.0"), ("tensorflow", "2.15.0")):  # fmt: skip
        assert breaking not in bounds[name]
    assert "1.23.5" in bounds["numpy"]


def test_the_framework_is_what_a_stack_has_in_one_version() -> None:
    framework = load_stack("tensorflow-2.9").framework
    assert {"tensorflow", "tensorflow-aarch64", "nvidia-cublas-cu11"} <= framework
    assert not framework & {"numpy", "mlflow-skinny"} and not load_stack("science").framework


def test_an_unknown_stack_names_those_there_are() -> None:
    with pytest.raises(UsageError, match=r"tensorflow-2\.8") as caught:
        load_stack("tensorflow-2.8")
    assert "tensorflow-2.9" in caught.value.remedy
