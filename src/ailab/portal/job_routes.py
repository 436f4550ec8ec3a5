"""The addresses of the pages of jobs."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import FastAPI, Form, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from pydantic import BaseModel, Field

from ailab.portal.backstage import Backstage
from ailab.portal.job_pages import JobPages
from ailab.portal.login import PREFIX
from ailab.portal.once import Once
from ailab.portal.session import HEADERS, User, refuse_foreign_form
from ailab.validation import RowId

Jobs = Annotated[list[RowId], Query()]


class NotebookJob(BaseModel):
    """A notebook that JupyterLab asks to run as a job: at `path` from the lab's folder, with the words that would stand
    after its name on the command line, and so many whole GPUs. Asked again with the same `key` it is the same job."""

    path: str = Field(min_length=1, max_length=4096)
    words: list[str] = Field([], max_length=1000)
    gpus: int = Field(0, ge=0, le=1024)
    key: str = Field("", max_length=64)


def add_notebook_jobs(app: FastAPI, backstage: Backstage) -> None:
    """What "Run as a job" in JupyterLab asks for. The browser sends it, not the workspace: so it works wherever
    that runs, and whose job it is the login says."""

    once = Once()

    @app.post(f"{PREFIX}api/notebook-jobs")
    async def run_notebook(user: User, asked: NotebookJob) -> dict[str, Any]:
        wish = (user.user, asked.path, asked.words, asked.gpus)
        answer: dict[str, Any] = await once.do(
            user.user, asked.key, lambda: asyncio.to_thread(backstage.run_notebook, *wish)
        )
        return answer


def add_job_pages(app: FastAPI, pages: JobPages) -> None:
    @app.get(f"{PREFIX}jobs")
    async def jobs(request: Request, user: User) -> Response:
        return HTMLResponse(await asyncio.to_thread(pages.jobs, request, user), headers=HEADERS)

    @app.get(f"{PREFIX}jobs/live")
    async def jobs_live(request: Request, user: User) -> Response:
        return HTMLResponse(await asyncio.to_thread(pages.jobs_live, request), headers=HEADERS)

    @app.get(f"{PREFIX}jobs/compare")
    async def compare(request: Request, user: User, job: Jobs) -> Response:
        return HTMLResponse(await asyncio.to_thread(pages.compare, request, user, job), headers=HEADERS)

    @app.get(f"{PREFIX}jobs/tensorboard")
    async def tensorboard(user: User, job: Jobs) -> Response:
        """TensorBoard with the runs of the chosen jobs alone."""
        return RedirectResponse(await asyncio.to_thread(pages.tensorboard, job), 303)

    @app.get(f"{PREFIX}jobs/{{job}}")
    async def job(request: Request, user: User, job: RowId) -> Response:
        return HTMLResponse(await asyncio.to_thread(pages.job, request, user, job), headers=HEADERS)

    @app.get(f"{PREFIX}jobs/{{job}}/live")
    async def job_live(request: Request, user: User, job: RowId) -> Response:
        return HTMLResponse(await asyncio.to_thread(pages.job_live, request, user, job), headers=HEADERS)

    @app.post(f"{PREFIX}jobs/{{job}}/stop")
    async def stop(user: User, job: RowId, form_token: Annotated[str, Form()]) -> Response:
        refuse_foreign_form(user, form_token)
        await asyncio.to_thread(pages.stop, user, job)
        return RedirectResponse(f"{PREFIX}jobs/{job}", 303)
