"""A change of lab.toml, lab.lock and the current generation together: whole after a kill at any moment, or not at all.

The new generation is built first, beside the one in use. Then the journal is written, with all that was and all that
is to be; from that moment the change counts, and whoever comes next finishes it. Before it, nothing has changed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from ailab import files, settings_file
from ailab.environments.generations import Generations
from ailab.errors import AilabError, Conflict, NotFound
from ailab.i18n import _
from ailab.paths import LabPaths

FORMAT = 1


@dataclass(frozen=True)
class State:
    """What has to agree: the texts of lab.toml and lab.lock (None: there is none), and a generation's name."""

    settings: str
    lock: str | None
    generation: str


@dataclass(frozen=True)
class Change:
    """A change that is built and only has to be put in place; `who`, `why` and `wish` as in `Generations.use`."""

    before: State
    after: State
    who: str
    why: str
    wish: str


class Journal:
    """The changes of one lab, one at a time."""

    def __init__(self, lab: LabPaths, generations: Generations) -> None:
        self._lab = lab
        self._generations = generations

    @contextmanager
    def held(self, *, wait: bool = True) -> Iterator[bool]:
        """Be the one who changes the lab; False at once without `wait` where another is at it."""
        lock = self._lab.environment / "change.lock"
        if wait:
            with files.locked(lock, timeout=files.BUILD_SECONDS):
                yield True
        else:
            with files.locked_if_free(lock) as free:
                yield free

    def state(self) -> State:
        """What is in place now. Bytes that are no UTF-8 come back as they were."""
        current = self._generations.current()
        settings = _read(self._lab.settings)
        if settings is None:
            raise NotFound(_("There is no {path} any more.").format(path=self._lab.settings), remedy="ailab init")
        return State(settings, _read(self._lab.lock), current.id if current is not None else "")

    def make(self, change: Change) -> None:
        """Put `change` in place, by one who holds the journal. Whatever goes wrong, all is as before, or the journal
        stays for the next command.

        Raises `Conflict` when a file is no longer what the change was made from: a person's own edit is not lost.
        """
        now = self.state()
        if (now.settings, now.lock) != (change.before.settings, change.before.lock):
            raise Conflict(
                _("lab.toml or lab.lock was changed meanwhile; it stays as it is now."),
                remedy=_("Run the same command again."),
            )
        files.replace(self._lab.pending_change, json.dumps({"format": FORMAT} | asdict(change)))
        try:
            self._finish(change)
        except BaseException:
            # Past the switch all is in place but the last words, and the next command says them.
            if (
                self.state().generation != change.after.generation
                or change.after.generation == change.before.generation
            ):
                self._undo(change)
            raise

    def recover(self) -> str:
        """What a killed command left: "finished", "undone", or "" where nothing was to be done.

        The caller holds the journal. A change whose files a person has changed since is forgotten: their files count.
        """
        change = self._pending()
        if change is None:
            return ""
        now = self.state()
        if not _is_ours(now, change):
            self._forget()
            return ""
        try:
            self._generations.get(change.after.generation)
        except NotFound:
            self._undo(change)
            return "undone"
        self._finish(change)
        return "finished"

    def _pending(self) -> Change | None:
        text = _read(self._lab.pending_change)
        if text is None:
            return None
        try:
            document = json.loads(text)
            if isinstance(document, dict) and document.get("format") == FORMAT:
                before, after = State(**document["before"]), State(**document["after"])
                return Change(before, after, document["who"], document["why"], document["wish"])
        except (ValueError, TypeError, KeyError):
            pass
        raise AilabError(
            _("A change that was under way cannot be read: {path}.").format(path=self._lab.pending_change),
            remedy=_("A newer ailab wrote it: use that one. Else remove the file, and run: ailab env build"),
        )

    def _finish(self, change: Change) -> None:
        settings_file.write(self._lab.settings, change.after.settings)
        if change.after.lock is not None:
            files.replace(self._lab.lock, change.after.lock)
        self._generations.use(change.after.generation, who=change.who, why=change.why, wish=change.wish)
        self._forget()

    def _undo(self, change: Change) -> None:
        """Put the files back. The generation is switched last, so that there is nothing to switch back."""
        settings_file.write(self._lab.settings, change.before.settings)
        if change.before.lock is None:
            self._lab.lock.unlink(missing_ok=True)
        else:
            files.replace(self._lab.lock, change.before.lock)
        self._forget()

    def _forget(self) -> None:
        self._lab.pending_change.unlink(missing_ok=True)
        for path in (self._lab.settings, self._lab.lock, self._lab.pending_change):
            files.clear_unfinished(path)


def _is_ours(now: State, change: Change) -> bool:
    """Whether each file is as it was before the change or as it is to be after it."""
    states = (change.before, change.after)
    return now.settings in {one.settings for one in states} and now.lock in {one.lock for one in states}


def _read(path: Path) -> str | None:
    try:
        return path.read_bytes().decode("utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return None
