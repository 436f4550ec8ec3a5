"""The journal of a change: killed at each of its lines, it is finished or undone; a person's own edit is not lost."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import pytest

from ailab import files
from ailab.environments import generations, journal
from ailab.environments.generations import Generations
from ailab.environments.journal import Change, Journal, State
from ailab.errors import AilabError, Conflict
from ailab.paths import LabPaths, MachinePaths

TRACED = {journal.__file__, generations.__file__, files.__file__}
FORGED = {"stack": "x", "title": "x", "python": "3", "lock": "", "built_at": "", "size_bytes": 0, "packages": {}}
OLD, NEW = State("old settings\r\n", "old lock", "g-old"), State("new \udcff settings", "new lock", "g-new")


class Lab:
    """A lab whose generations are names only."""

    def __init__(self, root: Path) -> None:
        self.paths = LabPaths(root / "lab")
        self.machine = MachinePaths(root / "machine")
        self.paths.environment.mkdir(parents=True)
        self.generations = Generations(self.machine, self.paths)
        self.journal = Journal(self.paths, self.generations)

    def put(self, state: State) -> None:
        for name in ("g-old", "g-new"):
            self.forge(name)
        self.paths.settings.write_bytes(state.settings.encode(errors="surrogateescape"))
        if state.lock is None:
            self.paths.lock.unlink(missing_ok=True)
        else:
            self.paths.lock.write_text(state.lock)
        for name in ("history.jsonl", "current"):
            (self.paths.environment / name).unlink(missing_ok=True)
        self.generations.use(state.generation, who="me", why="test")

    def forge(self, name: str) -> None:
        folder = self.machine.generations / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "generation.json").write_text(json.dumps(FORGED | {"id": name}))

    def leave_a_journal(self, change: Change) -> None:
        """What a kill right after the commit leaves."""
        child = os.fork()
        if child == 0:
            killed_at(self, change, lambda frame: frame.f_code.co_name == "_finish")
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        assert self.paths.pending_change.exists()


def change(before: State = OLD, after: State = NEW) -> Change:
    return Change(before, after, "me", "env add x", "wish")


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    made = Lab(tmp_path)
    made.put(OLD)
    return made


def killed_at(lab: Lab, wanted: Change, here: Callable[[FrameType], bool]) -> None:
    """Make the change and be killed at the first line of ours for which `here` says so; end with 0 if none came."""

    def trace(frame: FrameType, event: str, _value: object) -> object:
        if frame.f_code.co_filename not in TRACED:
            return None
        if event == "line" and here(frame):
            os.kill(os.getpid(), signal.SIGKILL)
        return trace

    status = 1
    try:
        sys.settrace(trace)  # type: ignore[arg-type]
        lab.journal.make(wanted)
        status = 0
    finally:
        os._exit(status)


@pytest.mark.parametrize("before", [OLD, State("old settings", None, "g-old")], ids=["a lock", "no lock yet"])
def test_killed_at_each_line_it_is_whole_or_not_at_all(lab: Lab, before: State) -> None:
    outcomes = []
    for stop in range(1, 500):
        lab.put(before)
        child = os.fork()
        if child == 0:
            lines = iter(range(stop))
            killed_at(lab, change(before), lambda _frame, lines=lines: next(lines, None) is None)  # type: ignore[misc]
        status = os.waitpid(child, 0)[1]
        lab.journal.recover()
        state = lab.journal.state()
        assert state in (before, NEW), stop
        assert not lab.paths.pending_change.exists() and not list(lab.paths.root.glob(".lab.*.new")), stop
        assert lab.generations.history()[-1]["to"] == state.generation, "the way back is known"
        outcomes.append(state == NEW)
        if status == 0:
            break
    else:
        raise AssertionError("the change never came to its end")
    assert outcomes == sorted(outcomes), "from the commit on it counts"
    assert len(outcomes) > 50 and outcomes[0] is False and outcomes[-1] is True


def test_bytes_and_modes_stay_and_links_too(lab: Lab, tmp_path: Path) -> None:
    elsewhere = tmp_path / "dotfiles.toml"
    lab.paths.settings.rename(elsewhere)
    elsewhere.chmod(0o640)
    lab.paths.settings.symlink_to(elsewhere)
    lab.journal.make(change())
    assert lab.paths.settings.is_symlink() and elsewhere.read_bytes() == b"new \xff settings"
    assert elsewhere.stat().st_mode & 0o777 == 0o640


def test_a_failure_after_the_commit_is_undone(lab: Lab) -> None:
    with pytest.raises(AilabError, match="g-gone"):
        lab.journal.make(change(after=State("new", "new", "g-gone")))
    assert lab.journal.state() == OLD and not lab.paths.pending_change.exists()


def test_without_its_generation_a_change_is_undone(lab: Lab) -> None:
    lab.leave_a_journal(change())
    (lab.machine.generations / "g-new/generation.json").unlink()
    assert lab.journal.recover() == "undone"
    assert lab.journal.state() == OLD


def test_files_that_a_person_changed_since_count(lab: Lab) -> None:
    lab.leave_a_journal(change())
    lab.paths.settings.write_text("by hand")
    assert lab.journal.recover() == ""
    assert lab.journal.state() == State("by hand", OLD.lock, OLD.generation)
    assert not lab.paths.pending_change.exists()


def test_a_change_is_refused_when_its_ground_has_moved(lab: Lab) -> None:
    lab.paths.lock.write_text("another")
    with pytest.raises(Conflict):
        lab.journal.make(change())
    assert lab.paths.lock.read_text() == "another" and not lab.paths.pending_change.exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 2}', '{"format": 1}', '{"format": 1, "before": 3}'])
def test_a_journal_that_cannot_be_read_is_said(lab: Lab, text: str) -> None:
    lab.paths.pending_change.write_text(text)
    with pytest.raises(AilabError, match="cannot be read"):
        lab.journal.recover()
    assert lab.journal.state() == OLD


def test_one_at_a_time(lab: Lab) -> None:
    with lab.journal.held() as ours, lab.journal.held(wait=False) as others:
        assert ours and not others
