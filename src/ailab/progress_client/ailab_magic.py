"""`%ailab_job` in a notebook: a command, or a cell, as a job of the lab. The lab's kernels load it as they start.

One file beside `ailab_jobs`, for Python 3.8 and later, with IPython.
"""

from __future__ import annotations

import os
import shlex
from typing import Any

from ailab_jobs import Job, JobsError, run, say

# What is longer Linux does not take as one word of a command (execve(2), MAX_ARG_STRLEN).
LONGEST_CELL = 100_000
_FLAGS = ("resume", "insecure_ports")
_LISTS = ("after", "inputs")
_OTHERS = ("name", "cwd", "workers", "strategy", "cpus", "memory", "gpus", "gpu_fraction", "priority", "retries",
           "timeout", "grace", "at", "seed")  # fmt: skip


def parse(line: str) -> tuple[dict[str, Any], list[str]]:
    """The options of `ailab run` at the beginning of a line, and the words after them. Raises `JobsError`."""
    words = shlex.split(line)
    wish: dict[str, Any] = {}
    while words and words[0].startswith("-"):
        word = words.pop(0)
        if word == "--":
            break
        option, equals, value = word.partition("=")
        key = {"-f": "follow", "--input": "inputs"}.get(option, option.lstrip("-").replace("-", "_"))
        if key in ("follow", *_FLAGS):
            wish[key] = True
            continue
        if key not in ("env", *_LISTS, *_OTHERS):
            raise JobsError(say("A job takes no {option}.", option=option), say("What it may be: ailab run --help"))
        if not equals and not words:
            raise JobsError(say("{option} needs a value.", option=option))
        value = value if equals else words.pop(0)
        if key == "env":
            variable, _equals, content = value.partition("=")
            wish.setdefault("env", {})[variable] = content if _equals else os.environ.get(variable, "")
        elif key in _LISTS:
            wish.setdefault(key, []).append(value)
        else:
            wish[key] = value
    return wish, words


def ailab_job(line: str, cell: str | None = None) -> Job | None:
    """A command as a job, or the cell: `%ailab_job --gpus 1 python train.py`, `%%ailab_job --gpus 1`, with the options
    of `ailab run`. The cell is run by itself, as a script: it has nothing of the notebook's variables.

    With `--follow` its output is shown here until it has ended; else the job is returned.
    """
    wish, words = parse(line)
    if cell is not None:
        if len(cell.encode()) > LONGEST_CELL:
            raise JobsError(say("The cell is too long for a job; put it into a file."))
        wish.setdefault("name", "cell")
        words = ["python", "-c", cell, *words]
    if not words:
        raise JobsError(say("There is nothing to run."), say("What it may be: ailab run --help"))
    follow = wish.pop("follow", False)
    job = run(words, **wish)
    if not follow:
        return job
    for text in job.logs(follow=True):
        print(text, flush=True)
    job.wait(check=True)
    return None


def load_ipython_extension(ipython: Any) -> None:
    """Called by the lab's kernels as they start."""
    ipython.register_magic_function(ailab_job, "line_cell", "ailab_job")
