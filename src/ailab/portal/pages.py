"""The portal's pages: templates, and the words in the reader's language."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from fastapi import Request
from jinja2 import Environment, FileSystemLoader, select_autoescape

from ailab import __version__
from ailab.errors import AilabError
from ailab.i18n import LANGUAGES, translate
from ailab.portal.backstage import Backstage
from ailab.portal.login import PREFIX, Session

EVENTS_SHOWN = 8


class Pages:
    """Renders pages; each call may block for the status."""

    def __init__(self, backstage: Backstage) -> None:
        self._backstage = backstage
        folder = Path(__file__).with_name("templates")
        self._templates = Environment(loader=FileSystemLoader(folder), autoescape=select_autoescape())
        self._templates.filters |= {"size": size, "clock": clock, "percent": percent}

    def language(self, request: Request) -> str:
        """The reader's choice, else the lab's language."""
        chosen = request.cookies.get("ailab-language", "")
        return chosen if chosen in LANGUAGES else self._backstage.language

    def say(self, request: Request, sentence: str) -> str:
        return translate(sentence, self.language(request))

    def render(self, name: str, request: Request, **values: Any) -> str:
        language = self.language(request)
        shared = {"language": language, "prefix": PREFIX, "version": __version__}
        return self._templates.get_template(name).render(_=lambda text: translate(text, language), **shared, **values)

    def home(self, request: Request, session: Session) -> str:
        welcome = "/tree/notebooks/welcome.ipynb" if (self._backstage.notebooks / "welcome.ipynb").exists() else ""
        return self.render("home.html", request, user=session.user, start=f"lab{welcome}", **self._live())

    def live(self, request: Request) -> str:
        """The part of the landing page that is fetched again every few seconds."""
        return self.render("live.html", request, **self._live())

    def _live(self) -> dict[str, Any]:
        return {"status": self._backstage.status(), "events": self._backstage.events(EVENTS_SHOWN)}

    def password(self, request: Request, session: Session, problem: str) -> str:
        first = self._backstage.must_change_password(session.user)
        free = self._backstage.may_replace_password(session.user)
        return self.render(
            "password.html",
            request,
            user=session.user,
            form=session.form_token,
            first=first,
            free=free,
            problem=problem,
        )

    def problem(self, request: Request, error: AilabError) -> str:
        return self.render("problem.html", request, user="", error=error)


def size(count: float | None) -> str:
    if not count:
        return "–"
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def clock(at: str | None) -> str:
    """A time of the lab's events on the machine's own clock."""
    return f"{datetime.fromisoformat(at).astimezone():%m-%d %H:%M:%S}" if at else "–"


def percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f} %"
