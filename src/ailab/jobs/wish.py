"""What a person may ask for when they submit a job: one model for the command line, job.toml, the API and Python."""

from __future__ import annotations

import re
import time
from datetime import datetime
from pathlib import Path
from typing import Annotated

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    field_validator,
)

from ailab.jobs.gangs import Strategy
from ailab.jobs.model import After, JobRequest
from ailab.settings import parse_optional_size
from ailab.validation import PlainText

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd]?)")
_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_AFTER = re.compile(r"(\d+)(?::(ok|any))?")
_ARRAY = re.compile(r"(\d+)-(\d+)")
LARGEST_ARRAY = 10_000
# As many as any number has that SQLite can hold.
_DIGITS = 18


def parse_duration(value: object) -> float:
    """Seconds from `"90"`, `"90s"`, `"10m"`, `"2h"`, `"1.5d"` or a number. Raises ValueError."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    match = _DURATION.fullmatch(value.strip().lower()) if isinstance(value, str) else None
    if match is None:
        raise ValueError('a time is written "90s", "10m", "2h" or "1d"')
    return float(match[1]) * _UNITS[match[2]]


def parse_moment(value: object) -> float:
    """Seconds since the epoch from `"18:30"` (the next time that it is so late here), `"2026-12-24 18:30"` (ISO 8601;
    of this machine's zone where it names none), or a number. Raises ValueError."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    text = value.strip() if isinstance(value, str) else ""
    if re.fullmatch(r"\d{1,2}:\d{2}", text):
        hour, _colon, minute = text.partition(":")
        moment = datetime.now().replace(hour=int(hour), minute=int(minute), second=0, microsecond=0)
        return moment.timestamp() + (86400.0 if moment.timestamp() <= time.time() else 0.0)
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        raise ValueError('a moment is written "18:30" or "2026-12-24 18:30"') from None


def parse_after(value: object) -> After:
    """`"12"` or `"12:ok"`: after job 12 is done; `"12:any"`: after it has ended in whatever way."""
    if isinstance(value, After):
        return value
    match = _AFTER.fullmatch(str(value).removeprefix("job-"))
    if match is None or len(match[1]) > _DIGITS:
        raise ValueError('what it comes after is written "12", "12:ok" or "12:any"')
    return After(int(match[1]), match[2] or "ok")


def parse_array(value: object) -> tuple[int, int] | None:
    """The first and last number of `"1-20"`; None of nothing."""
    if value in (None, ""):
        return None
    match = _ARRAY.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None or len(match[2]) > _DIGITS or not int(match[1]) <= int(match[2]) < int(match[1]) + LARGEST_ARRAY:
        raise ValueError(f'an array is written "1-20", of at most {LARGEST_ARRAY} parts')
    return int(match[1]), int(match[2])


def parse_memory(value: object) -> int:
    """A size as in lab.toml; 0, as an empty text, is no limit."""
    return 0 if value == 0 and isinstance(value, int) else parse_optional_size(value)


Duration = Annotated[float, BeforeValidator(parse_duration), Field(ge=0, le=366 * 86400, allow_inf_nan=False)]
# To the end of the year 9999, the last that Python's dates have.
Moment = Annotated[float, BeforeValidator(parse_moment), Field(ge=0, le=253402300799, allow_inf_nan=False)]
Variable = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class JobWish(BaseModel):
    """A job as it is asked for; the keys of job.toml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    command: list[PlainText] = Field(min_length=1, description="The words of the command.")
    cwd: PlainText = Field("", description="The folder in which it runs; empty: that of job.toml, or where you are.")
    name: PlainText = Field("", max_length=100, description="What the job is called; empty: after its command.")
    workers: int = Field(1, ge=1, le=256, description="How many train together; CPUs, memory and GPUs are each one's.")
    strategy: Strategy | None = Field(
        None, validate_default=True, description="How they do: mirrored, multiworker, ps or horovod."
    )
    insecure_ports: bool = Field(
        False, description="Give workers that connect to each other the network, and leave their ports open to others."
    )
    cpus: int = Field(0, ge=0, le=4096, description="CPUs; 0: those that go with its GPUs, else all.")
    memory: Annotated[int, BeforeValidator(parse_memory)] = Field(
        0, description='The most memory that it may take: "8g"; empty: no limit of its own.'
    )
    gpus: int = Field(0, ge=0, le=1024, description="Whole GPUs.")
    gpu_fraction: float = Field(0.0, ge=0, lt=1, description="A part of one GPU's memory instead: 0.5.")
    priority: int = Field(0, ge=-1000, le=1000, description="Higher: before your other jobs.")
    after: list[Annotated[After, BeforeValidator(parse_after)]] = Field(
        [], description='Jobs that end first: ["12"] (done), ["12:any"].'
    )
    retries: int = Field(0, ge=0, le=100, description="How often it is started again where that can help.")
    timeout: Duration = Field(0.0, description='The longest that it may run: "2h"; 0: as long as it takes.')
    grace: Duration = Field(30.0, description="How long it may take to end when it is stopped, to save its state.")
    resume: bool = Field(False, description="Start it again when the machine went down under it.")
    env: dict[Variable, PlainText] = Field({}, description="Variables; their values are shown to nobody.")
    array: Annotated[tuple[int, int] | None, BeforeValidator(parse_array)] = Field(
        None, description='Many jobs with the numbers "1-20" in AILAB_ARRAY_INDEX.'
    )
    at: Moment = Field(0.0, description='Not before: "18:30", "2026-12-24 18:30".')
    every: Duration = Field(0.0, description='Again and again: "1d", first at `at`.')
    seed: int | None = Field(None, ge=0, lt=2**32, description="Of all random numbers: PYTHONHASHSEED, AILAB_SEED.")
    inputs: list[PlainText] = Field([], description="Files and folders that it reads, whose fingerprints are kept.")

    @field_validator("strategy")
    @classmethod
    def _is_named(cls, strategy: Strategy | None, info: ValidationInfo) -> Strategy | None:
        if strategy is None and info.data.get("workers", 1) > 1:
            raise ValueError(f"say how they train together: {', '.join(Strategy)}")
        return strategy

    def title(self) -> str:
        """What the job is called: as asked, else by its script or program."""
        scripts = [Path(word).stem for word in self.command if word.endswith((".py", ".ipynb", ".sh"))]
        return self.name or (scripts[0] if scripts else Path(self.command[0]).name)

    def requests(self, *, cpus: int) -> list[JobRequest]:
        """The jobs of this wish, each of which gets `cpus` where it names none."""
        first, last = self.array or (0, 0)
        return [self._request(cpus, part if self.array else None) for part in range(first, last + 1)]

    def _request(self, cpus: int, part: int | None) -> JobRequest:
        return JobRequest(
            command=tuple(self.command),
            cwd=self.cwd,
            name=self.title() + ("" if part is None else f"[{part}]"),
            variables=self.env | ({} if part is None else {"AILAB_ARRAY_INDEX": str(part)}),
            cpus=self.cpus or cpus,
            memory_bytes=self.memory,
            gpus=self.gpus,
            gpu_fraction=self.gpu_fraction,
            priority=self.priority,
            after=tuple(self.after),
            retries=self.retries,
            timeout=self.timeout,
            grace=self.grace,
            resume=self.resume,
            not_before=self.at,
            seed=self.seed,
            inputs=tuple(self.inputs),
            workers=self.workers,
            strategy=self.strategy or "",
            insecure_ports=self.insecure_ports,
        )
