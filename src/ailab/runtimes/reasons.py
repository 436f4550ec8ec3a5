"""Why a task is as it is, in a sentence that says what to change."""

from __future__ import annotations

from ailab.i18n import _
from ailab.runtimes.base import Seen, TaskSpec, TaskState

_GIB = 1024**3
OUT_OF_MEMORY = "out-of-memory"
LOST = "lost"
GPUS_LOST = "gpus-lost"


def note(spec: TaskSpec, seen: Seen) -> str:
    """What a person should know of a task that they would not see from its state; empty where there is nothing."""
    if seen.kills:
        return _over_memory(spec.name, seen, spec.memory_bytes)
    if seen.state == TaskState.running and seen.before == OUT_OF_MEMORY:
        return _("{task} was started again: it had needed more memory than its limit of {limit}. {remedy}").format(
            task=spec.name, limit=size(spec.memory_bytes), remedy=_remedy()
        )
    if seen.state == TaskState.unknown:
        return _("Whether {task} runs cannot be told: {reason}").format(task=spec.name, reason=seen.reason)
    if (seen.reason or "").startswith("cannot-start: "):
        return _("{task} cannot start: {reason}").format(
            task=spec.name, reason=(seen.reason or "").removeprefix("cannot-start: ")
        )
    return ""


def silence_note(why: str | None) -> str:
    """What it means that who runs the tasks does not answer."""
    if why is None:
        return ""
    return _(
        "{reason} What runs goes on, and is taken over when the engine is back; until then it may be out of reach, and "
        "nothing is started or stopped."
    ).format(reason=why)


def fault_note(spec: TaskSpec, fault: str | None, idle_seconds: float) -> str:
    """What a task that runs has lost, and when it will be mended: as soon as nothing has run in it for so long."""
    if fault != GPUS_LOST:
        return ""
    return _(
        "{task} may not use its GPUs any more: systemctl daemon-reload takes them from a container that runs. It is "
        "started again when nothing has run in it for {minutes:g} minutes; at once: ailab down, then ailab up. What "
        "notebooks have in memory is gone then."
    ).format(task=spec.name, minutes=idle_seconds / 60)


def _over_memory(task: str, seen: Seen, limit: int) -> str:
    """What the kernel did to a task that went over its limit of `limit` bytes, and what to change."""
    if seen.reason == OUT_OF_MEMORY:
        text = _("{task} was killed: it needed more memory than its limit of {limit}. {remedy}")
    else:
        text = _(
            "{task} needed more memory than its limit of {limit}: {count} of its processes were killed, as is a "
            "notebook's kernel. {remedy}"
        )
    return text.format(task=task, limit=size(limit), count=seen.kills, remedy=_remedy())


def _remedy() -> str:
    return _("Load less at once, or raise [resources] memory in lab.toml, then ailab down and ailab up.")


def size(count: int) -> str:
    """Bytes as lab.toml writes a size; 0 is no limit."""
    if not count:
        return _("the whole machine")
    return f"{count / _GIB:.3g} GiB" if count >= _GIB else f"{count / 2**20:.3g} MiB"
