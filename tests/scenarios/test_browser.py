"""The lab as a person sees it in a browser."""

from __future__ import annotations

from typing import Any

import pytest
from browser import first_visit, needs_chromium
from conftest import CommandLine

pytestmark = [pytest.mark.lab, pytest.mark.browser, needs_chromium]


def test_login_portal_tensorboard_and_a_cell(science: CommandLine, first_up: Any) -> None:
    login, code = first_up["login"], "print('six times seven is', 6 * 7)"
    first_visit(first_up["url"], login["user"], login["password"], code, "is 42", "science")
    later = science.json("open")
    assert later["user"] == login["user"] and "/hub/login-link?code=" in later["url"]
