"""The API of jobs behind the login: what `ailab_jobs` asks for in notebooks, in the shapes of the daemon's own."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from ailab.portal.backstage import Backstage
from ailab.portal.job_rights import refuse_others
from ailab.portal.login import PREFIX
from ailab.portal.session import User
from ailab.validation import RowId


class Asked(BaseModel):
    """A job with the keys of job.toml; whose it is, the login says."""

    wish: dict[str, Any]


def add_job_api(app: FastAPI, backstage: Backstage) -> None:
    jobs = f"{PREFIX}api/jobs"

    @app.post(jobs)
    async def run_job(user: User, asked: Asked) -> dict[str, Any]:
        return await asyncio.to_thread(backstage.run_job, user.user, asked.wish)

    @app.get(jobs)
    async def find_jobs(user: User, state: str = "", owner: str = "", name: str = "", limit: int = 50) -> Any:
        return await asyncio.to_thread(backstage.find_jobs, state, owner, name, max(1, min(limit, 1000)))

    @app.get(f"{jobs}/{{job}}")
    async def get_job(user: User, job: RowId) -> dict[str, Any]:
        return await asyncio.to_thread(backstage.job, job)

    @app.get(f"{jobs}/{{job}}/log")
    async def get_log(user: User, job: RowId, member: int = 0, after: int = 0) -> dict[str, Any]:
        await asyncio.to_thread(refuse_others, backstage, user.user, job)
        return await asyncio.to_thread(backstage.job_log, job, max(0, member), max(0, after))

    @app.post(f"{jobs}/{{job}}/stop")
    async def stop_job(user: User, job: RowId) -> dict[str, Any]:
        await asyncio.to_thread(refuse_others, backstage, user.user, job)
        await asyncio.to_thread(backstage.stop_job, job, user.user)
        return await asyncio.to_thread(backstage.job, job)

    @app.post(f"{jobs}/{{job}}/rerun")
    async def rerun_job(user: User, job: RowId) -> dict[str, Any]:
        await asyncio.to_thread(refuse_others, backstage, user.user, job)
        return await asyncio.to_thread(backstage.rerun_job, job, user.user)
