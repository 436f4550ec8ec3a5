"""[mounts]: what cannot serve is refused with its line, what can appears in the lab's folder."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import reachable_folder

from ailab import mounting
from ailab.lab import Lab
from ailab.resources import mounts
from ailab.settings_file import SettingsError


@pytest.fixture
def folder() -> Iterator[Path]:
    with reachable_folder() as made:
        (made / "lab/.ailab").mkdir(parents=True)
        yield made


def lab(folder: Path, *lines: str) -> Lab:
    (folder / "lab/lab.toml").write_text("\n".join(["# mine", "[mounts]", *lines, ""]))
    return Lab.open(folder / "lab")


def refusal(folder: Path, line: str) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        mounting.ensure(lab(folder, line))
    assert (caught.value.line, caught.value.key) == (3, "mounts.data")
    assert caught.value.remedy
    return caught.value


def test_what_is_missing_or_no_folder(folder: Path) -> None:
    assert "mkdir -p" in refusal(folder, f"data = '{folder}/none'").remedy
    (folder / "file").touch()
    assert "no folder" in refusal(folder, f"data = {{ path = '{folder}/file', read_only = true }}").message


@pytest.mark.parametrize("place", [".", "..", "./.ailab", ".ailab/secrets", "/", "/var/run"])
def test_what_would_give_the_lab_or_the_machine_away(folder: Path, place: str) -> None:
    assert "whoever" in refusal(folder, f"data = '{place}'").message


def test_the_labs_own_files_cannot_be_hidden(folder: Path) -> None:
    (folder / "data").mkdir()
    for name in ('".ailab"', '"lab.toml"', '"lab.lock"', '"../x"'):
        with pytest.raises(SettingsError) as caught:
            lab(folder, f"{name} = '{folder}/data'")
        assert "starts with a letter" in caught.value.remedy
    (folder / "lab/data/notes").mkdir(parents=True)
    assert "hide it" in refusal(folder, f"data = '{folder}/data'").message
    assert (folder / "lab/data/notes").exists()


def test_a_misspelt_key_is_told(folder: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        lab(folder, "data = { path = '/mnt', readonly = true }")
    assert "read_only" in caught.value.remedy


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="another account and another disk need root")
def test_what_may_not_be_written(folder: Path) -> None:
    data = folder / "data"
    data.mkdir()
    data.chmod(0o755)

    def as_nobody(line: str) -> str:
        """What is said to an account that owns nothing, in a process of its own."""
        checked = lab(folder, line)
        reader, writer = os.pipe()
        if os.fork() == 0:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            try:
                mounting.check(checked)
            except SettingsError as error:
                os.write(writer, error.message.encode())
            os._exit(0)
        os.close(writer)
        os.wait()
        return os.read(reader, 10_000).decode()

    assert "belongs to root (mode 755)" in as_nobody(f"data = '{data}'")
    assert as_nobody(f"data = {{ path = '{data}', read_only = true }}") == ""
    data.chmod(0o700)
    assert "may not look into" in as_nobody(f"data = '{data}'")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,mode=0777", "tmpfs", data], check=True)
    try:
        assert "mounted read-only" in as_nobody(f"data = '{data}'")
    finally:
        subprocess.run(["umount", "-l", data], check=True)


@pytest.mark.parametrize(("number", "words"), [(116, "is gone"), (107, "is gone"), (13, "may not look into")])
def test_what_a_disk_that_is_gone_says(folder: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str) -> None:
    """No server is at hand that could be taken away: the kernel's answer is ours."""
    (folder / "data").mkdir()

    def stale(path: Path) -> list[str]:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(mounts.os, "listdir", stale)
    assert words in refusal(folder, f"data = '{folder}/data'").message


def test_a_disk_that_does_not_answer_is_not_waited_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "data").mkdir()
    hanging = threading.Event()
    monkeypatch.setattr(mounts, "_ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(mounts.os, "listdir", lambda path: hanging.wait(30))
    error = refusal(folder, f"data = '{folder}/data'")
    hanging.set()
    assert "did not answer" in error.message and "umount -l" in error.remedy


def test_mounts_come_and_go(folder: Path) -> None:
    (folder / "data").mkdir()
    (folder / "lab/notebooks").mkdir()
    place = folder / "lab/data"
    mounting.ensure(lab(folder, f"data = '{folder}/data'", f"notebooks = '{folder}/data'"))
    assert place.readlink() == folder / "data" == (folder / "lab/notebooks").readlink()
    (folder / "other").mkdir()
    mounting.ensure(lab(folder, f"data = '{folder}/other'"))
    assert place.readlink() == folder / "other" and (folder / "lab/notebooks").is_dir()
    assert not (folder / "lab/notebooks").is_symlink(), "the lab's own folder again"
    mounting.ensure(lab(folder))
    assert not place.is_symlink() and (folder / "data").is_dir()
