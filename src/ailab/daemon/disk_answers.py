"""Where an application of the daemon fails because of a full disk, or a damaged database, its answer names that."""

from __future__ import annotations

import inspect
from pathlib import Path

from fastapi import FastAPI, Request, Response
from sqlalchemy.exc import DBAPIError

from ailab import disk, store_file
from ailab.errors import AilabError
from ailab.lab import Lab


def name_full_disks(app: FastAPI, lab: Lab) -> None:
    """Translate what `app` fails of before its own handler of our errors answers; that is registered already."""
    answer = app.exception_handlers[AilabError]
    folders: tuple[Path, ...] = disk.folders_of(lab.paths.root, lab.machine)

    async def answered(request: Request, error: AilabError) -> Response:
        made = answer(request, error)
        return await made if inspect.isawaitable(made) else made

    async def ours(request: Request, error: Exception) -> Response:
        assert isinstance(error, AilabError)
        return await answered(request, disk.cause(error, folders))

    async def others(request: Request, error: Exception) -> Response:
        told = disk.explain(error, folders)
        if told is None and store_file.is_damage(getattr(error, "orig", error)):
            told = store_file.damaged(lab.paths.database, str(getattr(error, "orig", error)))
        if told is None:
            raise error
        return await answered(request, told)

    app.add_exception_handler(AilabError, ours)
    app.add_exception_handler(OSError, others)
    app.add_exception_handler(DBAPIError, others)
