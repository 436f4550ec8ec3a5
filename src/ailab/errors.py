"""The one family of errors: what a person reads, what they type next, and how the process exits."""

from __future__ import annotations


class AilabError(Exception):
    """A failure that is told to the person as it stands.

    `message` names the cause, `remedy` the next thing to type or change, `detail` a tool's own output. The CLI prints
    them and exits with `exit_code`; the API answers them as `body()` with `http_status`.
    """

    exit_code = 1
    http_status = 500
    kind = "failed"

    def __init__(self, message: str, *, remedy: str = "", detail: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.detail = detail

    def body(self) -> dict[str, dict[str, str]]:
        """The one JSON shape of an error, for the API and for `--json`."""
        return {"error": {"kind": self.kind, "message": self.message, "remedy": self.remedy, "detail": self.detail}}


class UsageError(AilabError):
    """The person asked for something that cannot be meant: exit code 2."""

    exit_code = 2
    http_status = 400
    kind = "usage"


class NotFound(AilabError):
    """What was named does not exist."""

    http_status = 404
    kind = "not-found"


class Conflict(AilabError):
    """Something else holds what is needed: a port, a lock, a name."""

    http_status = 409
    kind = "conflict"


class Forbidden(AilabError):
    """A policy says no; not a crash."""

    http_status = 403
    kind = "forbidden"


class WrongPassword(Forbidden):
    """The one refusal after which a person simply tries again."""

    kind = "wrong-password"


class NotRunning(AilabError):
    """The lab's daemon does not answer."""

    http_status = 503
    kind = "not-running"


class DiskFull(AilabError):
    """There is no room, or no inode, for what was to be written. What was half done has been removed."""

    http_status = 507
    kind = "disk-full"


class ReadOnlyDisk(AilabError):
    """The file system may not be written."""

    http_status = 507
    kind = "read-only"
