"""Imports point one way: foundation <- features <- lab <- daemon, portal, cli. And the doors are the only doors."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "ailab"
MODULES = sorted(SOURCE.rglob("*.py"))

FOUNDATION = {
    "errors", "paths", "settings", "settings_file", "command", "waiting", "store", "events", "i18n", "client",
    "downloads", "caller_environment", "files", "log_tail", "engine", "engine_gpus", "migrations", "dpkg",
    "attempts", "disk", "place", "store_file", "tether", "unreadable", "validation",
    "lab_account", "lock_holders", "root_folders",
}  # fmt: skip
FEATURES = {"stacks", "environments", "images", "runtimes", "resources", "jobs", "models", "access", "monitoring",
            "backup", "pipelines", "doctor", "notebooks", "bundles", "tracking"}  # fmt: skip
MAY_ALSO_USE = {
    "environments": {"stacks"},
    "bundles": {"environments"},
    "images": {"environments"},
    "jobs": {"runtimes", "resources"},
    "tracking": {"jobs"},
    "models": {"runtimes", "resources"},
    "access": {"runtimes", "resources"},
}
WIRING = {
    "lab",
    "bringup",
    "shutdown",
    "provision",
    "preflight",
    "change",
    "bundling",
    "imaging",
    "bases",
    "mounting",
    "containers",
    "standing",
    "sharing",
    "fingerprint",
    "checkup",
    "working",
    "asking",
    "tracking_setup",
}
TOP = {"daemon", "portal", "cli", "__main__"}
# What a layer may import, besides itself.
ALLOWED = {
    **{name: FOUNDATION for name in FOUNDATION},
    **{name: FOUNDATION | MAY_ALSO_USE.get(name, set()) for name in FEATURES},
    **{name: FOUNDATION | FEATURES | WIRING for name in WIRING},
    "daemon": FOUNDATION | FEATURES | WIRING | {"portal"},
    "portal": FOUNDATION | FEATURES,
    "cli": FOUNDATION | FEATURES | WIRING | {"daemon"},
    "__main__": {"cli"},
    "client": FOUNDATION | {"progress_client"},
    "progress_client": set(),
}
# Run on their own, by a Python that has no ailab: the shim, TensorBoard's server, what a job imports.
STANDALONE = {
    "runtimes/shim.py",
    "tether.py",
    "access/tensorboard_server.py",
    "access/mlflow_server.py",
    "images/finish_layer.py",
    "progress_client/ailab_progress.py",
    "progress_client/ailab_jobs.py",
    "progress_client/ailab_magic.py",
    "progress_client/ailab_trainings.py",
    "progress_client/sitecustomize.py",
}
LONGEST_FILE = 400


def imported(tree: ast.AST) -> set[str]:
    """The parts of ailab that a module names in its imports, TYPE_CHECKING ones left out."""
    hidden = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    names: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} if node.module != "ailab" else {f"ailab.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("ailab.")} - {"__version__"}


def part_of(module: Path) -> str:
    relative = module.relative_to(SOURCE)
    return relative.parts[0].removesuffix(".py")


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(SOURCE)))
def test_a_module_keeps_the_house_rules(module: Path) -> None:
    text = module.read_text(encoding="utf-8")
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "a module says in its first line what it is for"
    assert len(text.splitlines()) <= LONGEST_FILE
    part = part_of(module)
    if part != "__init__":
        assert part in ALLOWED, f"{part} is on no layer: put it on the map"
        forbidden = imported(tree) - ALLOWED[part] - {part}
        assert not forbidden, f"{part} must not import {sorted(forbidden)}"
    if str(module.relative_to(SOURCE)) in STANDALONE:
        assert not imported(tree)


def calls(tree: ast.AST) -> set[str]:
    return {
        f"{node.func.value.id}.{node.func.attr}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name)
    }


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(SOURCE)))
def test_one_door_for_programs_and_for_waiting(module: Path) -> None:
    relative = str(module.relative_to(SOURCE))
    used = calls(ast.parse(module.read_text(encoding="utf-8")))
    if relative not in {"command.py", *STANDALONE}:
        assert not used & {"subprocess.run", "subprocess.Popen", "subprocess.check_output", "os.system", "os.popen"}
    if relative not in {"waiting.py", *STANDALONE}:
        assert "time.sleep" not in used


def test_wiring_does_no_work_of_its_own() -> None:
    """`Lab` hands out parts; a method that is neither a property nor a constructor would be work."""
    tree = ast.parse((SOURCE / "lab.py").read_text())
    lab = next(node for node in tree.body if isinstance(node, ast.ClassDef))
    methods = [node for node in lab.body if isinstance(node, ast.FunctionDef)]
    working = [method.name for method in methods if not method.decorator_list]
    assert working == ["make_private_folders"]
