"""What an image is called: registry, repository, tag, digest, as the OCI distribution specification has it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ailab.errors import UsageError
from ailab.i18n import _

# Docker's own registry, for names that begin with no host.
DEFAULT_HOST = "docker.io"
# https://github.com/opencontainers/distribution-spec, "Pulling manifests"; a host as Docker tells one from a folder.
_HOST = r"(?:localhost|[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+|[A-Za-z0-9-]+(?=:)|\[[0-9a-fA-F:]+\])(?::\d+)?"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_TAG = r"\w[\w.-]{0,127}"
_WHOLE = re.compile(
    rf"(?:(?P<host>{_HOST})/)?(?P<path>{_PART}(?:/{_PART})*)(?::(?P<tag>{_TAG}))?(?:@(?P<digest>sha256:[0-9a-f]{{64}}))?",
    re.ASCII,
)


@dataclass(frozen=True)
class Reference:
    """`host/path:tag` or `host/path@digest`; empty is what was not named."""

    host: str
    path: str
    tag: str
    digest: str

    @property
    def repository(self) -> str:
        return f"{self.host}/{self.path}" if self.host else self.path

    @property
    def registry(self) -> str:
        """The host that the image is asked of."""
        return self.host or DEFAULT_HOST

    def __str__(self) -> str:
        if self.digest:
            return f"{self.repository}@{self.digest}"
        return f"{self.repository}:{self.tag}" if self.tag else self.repository

    def at(self, digest: str) -> str:
        """The same image, by its digest."""
        return f"{self.repository}@{digest}"


def parse(text: str) -> Reference:
    """The reference in `text`. Raises `UsageError`."""
    found = _WHOLE.fullmatch(text)
    if found is None:
        raise UsageError(
            _("{text} is not an image's name.").format(text=text),
            remedy=_("It looks like host:5000/team/vision:tag, in lower case, or host:5000/team/vision@sha256:..."),
        )
    return Reference(found["host"] or "", found["path"], found["tag"] or "", found["digest"] or "")


def is_tag(text: str) -> bool:
    return re.fullmatch(_TAG, text, re.ASCII) is not None
