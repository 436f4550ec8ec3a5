"""A new file that a person names, in a folder where others may have put something in its place."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ailab.cli.person_files import new_file
from ailab.errors import Conflict, UsageError


def test_a_new_file_or_an_empty_one_is_written(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    for name in ("new", "empty"):
        with new_file(tmp_path / name) as sink:
            sink.write(b"all of it")
        assert (tmp_path / name).read_bytes() == b"all of it"
    with pytest.raises(Conflict), new_file(tmp_path / "new"):
        pass
    with pytest.raises(UsageError), new_file(tmp_path / "nowhere/new"):
        pass


def test_neither_a_link_nor_a_pipe_nor_a_second_name_is_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.touch()
    (tmp_path / "link").symlink_to(precious)
    (tmp_path / "dangling").symlink_to(tmp_path / "made")
    os.link(precious, tmp_path / "second")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("link", "dangling", "second", "pipe", "folder"):
        with pytest.raises(Conflict), new_file(tmp_path / name) as sink:
            sink.write(b"x")
    assert precious.read_bytes() == b"" and not (tmp_path / "made").exists()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="makes a file of another account")
def test_another_account_s_file_is_not_written(tmp_path: Path) -> None:
    (tmp_path / "theirs").touch()
    os.chown(tmp_path / "theirs", 4711, 4711)
    with pytest.raises(Conflict), new_file(tmp_path / "theirs"):
        pass


def test_what_was_not_finished_goes_but_not_what_has_taken_its_name(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), new_file(tmp_path / "half") as sink:
        sink.write(b"half")
        raise ZeroDivisionError
    assert not (tmp_path / "half").exists()
    with pytest.raises(ZeroDivisionError), new_file(tmp_path / "half") as sink:
        (tmp_path / "half").unlink()
        (tmp_path / "half").write_text("another's")
        raise ZeroDivisionError
    assert (tmp_path / "half").read_text() == "another's"
