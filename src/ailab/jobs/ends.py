"""How an attempt of a job has ended: what the runtime saw as a state, a reason, a sentence, and whether to retry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from ailab.i18n import _
from ailab.jobs import gangs
from ailab.jobs.model import EndReason, JobState
from ailab.jobs.queue import End, Job
from ailab.runtimes.base import Seen, TaskSpec
from ailab.runtimes.reasons import size

# What another attempt can help: bad luck of the script or of the machine. The same limit is exceeded again, a missing
# program is missing again, and who has stopped a job has meant it.
_WORTH_ANOTHER = (EndReason.exit_status, EndReason.lost, EndReason.gpus_lost)
# sh(1): a command that is not there, or may not be run.
_NO_COMMAND = (126, 127)
FIRST_PAUSE = 5.0
LONGEST_PAUSE = 600.0
TIMEOUT = "timeout"
# What happens to one member of a gang, and not to all of it at once.
_OF_A_MEMBER = (*_WORTH_ANOTHER, EndReason.out_of_memory, EndReason.cannot_start)


def seconds(at: str | None) -> float | None:
    """Seconds since the epoch of a runtime's time."""
    return datetime.fromisoformat(at).timestamp() if at else None


def end_of(job: Job, seen: Sequence[Seen], spec_of: Callable[[str], TaskSpec | None]) -> End:
    """What has become of `job`, whose tasks have ended as `seen`; `spec_of` has what they were started with."""
    number = gangs.telling(job.request.strategy, job.asked, seen)
    member = job.members[number]
    state, reason, note = _judged(job, seen[number], spec_of(member.task))
    together = reason == EndReason.lost and (seen[number].reason == "stopped" or len({one.reason for one in seen}) == 1)
    if len(seen) > 1 and reason in _OF_A_MEMBER and not together:
        note = f"{member.name}: {note}"
    begun, ended = gangs.span(seen)
    return End(state, reason, note, seen[number].exit_status, seconds(begun), seconds(ended))


def _judged(job: Job, seen: Seen, spec: TaskSpec | None) -> tuple[JobState, EndReason | str, str]:
    why = seen.reason or ""
    if seen.exit_status == 0 and not why:
        return JobState.done, "", ""
    asked = "" if job.asked == gangs.OVER else job.asked
    if asked == TIMEOUT:
        limit = _duration(job.request.timeout)
        return JobState.failed, EndReason.timeout, _("It ran longer than its --timeout of {limit}.").format(limit=limit)
    if asked:
        return JobState.stopped, EndReason.stopped, _("Stopped by {who}.").format(who=asked)
    if seen.kills or why == EndReason.out_of_memory:
        limit = size(spec.memory_bytes) if spec is not None and spec.memory_bytes else "?"
        text = _("It needed more memory than its limit of {limit}. Ask for more: --memory").format(limit=limit)
        return JobState.failed, EndReason.out_of_memory, text
    if why.startswith("cannot-start"):
        return JobState.failed, EndReason.cannot_start, why.partition(": ")[2]
    if why == EndReason.gpus_lost:
        return JobState.failed, EndReason.gpus_lost, _("It lost its GPUs.")
    if why == "stopped":
        return JobState.failed, EndReason.lost, _("The lab was brought down under it.")
    if why in ("lost", "shim-killed"):
        return JobState.failed, EndReason.lost, _("The machine went down, or its processes were killed from outside.")
    return JobState.failed, EndReason.exit_status, _ended_with(seen.exit_status)


def _ended_with(status: int | None) -> str:
    if status is not None and status > 128:
        import signal

        try:
            name = signal.Signals(status - 128).name
        except ValueError:
            name = str(status - 128)
        return _("It was ended by the signal {name}.").format(name=name)
    return _("It failed with exit status {status}.").format(status=status)


def is_retried(job: Job, end: End) -> bool:
    """Whether a job that ended so is started again: a failure that another attempt can help, within its --retries; or
    one that was lost with the machine and asked to be resumed, as often as that happens."""
    if end.state != JobState.failed or job.asked not in ("", gangs.OVER):
        return False
    if end.reason == EndReason.lost and job.request.resume:
        return True
    helps = end.reason in _WORTH_ANOTHER and end.exit_status not in _NO_COMMAND
    return helps and job.failures < job.request.retries


def pause_before(failures: int) -> float:
    """Seconds before the attempt after that many failures: 5, 10, 20 ... up to ten minutes."""
    return float(min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** max(0, failures - 1)))


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
