"""What the portal needs of the daemon that serves it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol


class Backstage(Protocol):
    """Answered by the daemon. Calls may block for a moment; the portal makes them in a thread."""

    hub_socket: Path
    service_token: str
    language: str
    forwarded: dict[str, Path]
    notebooks: Path

    def status(self) -> dict[str, Any]: ...

    def events(self, limit: int) -> list[dict[str, Any]]: ...

    def must_change_password(self, user: str) -> bool: ...

    def may_replace_password(self, user: str) -> bool: ...

    def change_password(self, user: str, new: str, current: str | None, address: str) -> None: ...

    def leases(self) -> dict[str, Any]: ...

    def jobs(self, limit: int) -> dict[str, Any]: ...

    def job(self, job: int) -> dict[str, Any]: ...

    def job_output(self, job: int, lines: int) -> list[str]: ...

    def stop_job(self, job: int, user: str) -> None: ...

    def is_admin(self, user: str) -> bool: ...

    def run_notebook(self, user: str, path: str, words: list[str], gpus: int) -> dict[str, Any]: ...
