"""A lab.toml with a password or a token in it is for its account alone; one without keeps its mode."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from patients import a_lab, facts_of

from ailab.doctor import permissions
from ailab.doctor.findings import Severity
from ailab.settings_file import close_to_others, has_credentials, set_value


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('pypi = "https://ada:s3cret@mirror/simple"', True),
        ('proxy = "http://token@proxy:3128"', True),
        ('# npm = "https://ada:s3cret@npm/"', True),
        ('packages = ["model @ git+https://oauth2:t0ken@git.example/model"]', True),
        ('pypi = "https://mirror/simple?access_token=abc"', True),
        ('packages = ["model @ git+ssh://git@git.example/model"]', False),
        ('pypi = "https://mirror/simple"', False),
        ('[access]\nbind = "127.0.0.1"', False),
    ],
)
def test_what_credentials_are(text: str, found: bool) -> None:
    assert has_credentials(text) is found


def test_it_is_written_for_its_account_alone(tmp_path: Path) -> None:
    path = tmp_path / "lab.toml"
    path.write_text("")
    path.chmod(0o644)
    set_value(path, "access", "port", 8889)
    assert mode(path) == 0o644
    set_value(path, "mirrors", "pypi", "https://ada:s3cret@mirror/simple")
    assert mode(path) == 0o600


def test_up_closes_one_and_the_doctor_tells_of_it(tmp_path: Path) -> None:
    lab = a_lab(tmp_path / "lab")
    lab.settings.write_text('[mirrors]\npypi = "https://ada:s3cret@mirror/simple"\n')
    lab.settings.chmod(0o640)
    (found,) = permissions.lab_folders(facts_of(tmp_path, lab))
    assert found.severity == Severity.warning and "chmod 600" in found.remedy and found.fix is not None
    assert "s3cret" not in found.message + found.evidence
    found.fix.do()
    assert mode(lab.settings) == 0o600 and not close_to_others(lab.settings), "there is nothing left to do"
    lab.settings.write_text("")
    lab.settings.chmod(0o644)
    assert not close_to_others(lab.settings) and mode(lab.settings) == 0o644
    (found,) = permissions.lab_folders(facts_of(tmp_path, lab))
    assert found.severity == Severity.ok and os.access(lab.settings, os.R_OK)
