"""The file of a bundle: what goes in comes out, and a file that is not whole or not honest is refused."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from ailab.bundles.file import FORMAT, BadBundle, Description, Reader, Writer

ABOUT = Description(ailab="0.1.0", machine="x86_64", glibc="2.17", stack="science", lock="abc", python="3.11.2")


def quiet(_text: str) -> None:
    pass


def written(folder: Path) -> bytes:
    sink = io.BytesIO()
    writer = Writer(sink, quiet)
    writer.add(folder, "lab")
    writer.finish(ABOUT)
    return sink.getvalue()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    (folder / "notebooks/深/__pycache__").mkdir(parents=True)
    (folder / "notebooks/深/笔记.ipynb").write_text("{}", encoding="utf-8")
    (folder / "notebooks/深/__pycache__/x.pyc").write_bytes(b"old")
    (folder / "tool").write_bytes(os.urandom(300_000))
    (folder / "tool").chmod(0o755)
    os.utime(folder / "tool", (1_000_000_000, 1_000_000_000))
    (folder / "again").hardlink_to(folder / "tool")
    (folder / "link").symlink_to("notebooks/深")
    return folder


def test_what_goes_in_comes_out(tree: Path, tmp_path: Path) -> None:
    reader = Reader(io.BytesIO(written(tree)), "lab.bundle")
    assert reader.description.stack == "science"
    assert sorted(reader.description.files) == ["lab/again", "lab/notebooks/深/笔记.ipynb", "lab/tool"]
    assert reader.read("lab/tool") == (tree / "tool").read_bytes()
    reader.extract({"lab": tmp_path / "out"}, quiet)
    out = tmp_path / "out"
    assert (out / "link/笔记.ipynb").read_text() == "{}" and (out / "link").is_symlink()
    assert (out / "tool").stat().st_mode & 0o777 == 0o755 and (out / "tool").stat().st_mtime == 1_000_000_000
    assert (out / "again").read_bytes() == (tree / "tool").read_bytes()
    assert not list(out.rglob("__pycache__"))


def test_links_that_lead_out_and_sockets_are_left_out_and_said(tree: Path, tmp_path: Path) -> None:
    (tree / "notebooks/data").symlink_to("/mnt")
    (tree / "up").symlink_to("../tree")
    os.mkfifo(tree / "pipe")
    sink = io.BytesIO()
    writer = Writer(sink, quiet)
    writer.add(tree, "lab")
    writer.finish(ABOUT)
    assert sorted(writer.left) == ["lab/notebooks/data", "lab/pipe", "lab/up"]
    sink.seek(0)
    Reader(sink, "lab.bundle").extract({"lab": tmp_path / "out"}, quiet)
    assert not (tmp_path / "out/up").is_symlink() and (tmp_path / "out/tool").exists()


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.9, 0.97])
def test_a_file_that_was_cut_off_is_refused(tree: Path, share: float) -> None:
    whole = written(tree)
    with pytest.raises(BadBundle, match="no whole bundle") as caught:
        Reader(io.BytesIO(whole[: int(len(whole) * share)]), "lab.bundle")
    assert "sha256sum" in caught.value.remedy


def test_a_changed_byte_is_found_and_named(tree: Path, tmp_path: Path) -> None:
    whole = bytearray(written(tree))
    at = bytes(whole).index((tree / "tool").read_bytes()[:100])
    whole[at] ^= 1
    with pytest.raises(BadBundle, match="damaged: lab/again"):
        Reader(io.BytesIO(bytes(whole)), "lab.bundle").extract({"lab": tmp_path / "out"}, quiet)


def _named(name: str) -> Callable[[], tarfile.TarInfo]:
    return lambda: tarfile.TarInfo(name)


def _link(name: str, leads: str, kind: bytes = tarfile.SYMTYPE) -> Callable[[], tarfile.TarInfo]:
    def made() -> tarfile.TarInfo:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, leads
        return info

    return made


@pytest.mark.parametrize("member", [_named("lab/../../evil"), _named("lab//etc/evil"), _link("lab/link", "/etc"),
                                    _link("lab/a/link", "../../out"), _link("lab/link", ".."),
                                    _link("lab/hard", "/etc/passwd", tarfile.LNKTYPE)])  # fmt: skip
def test_nothing_leaves_the_folder_that_it_is_unpacked_to(
    member: Callable[[], tarfile.TarInfo], tmp_path: Path
) -> None:
    sink = io.BytesIO()
    writer = Writer(sink, quiet)
    writer._tar.addfile(member())
    writer.finish(ABOUT)
    sink.seek(0)
    place = tmp_path / "deep/place"
    with pytest.raises(BadBundle, match="damaged"):
        Reader(sink, "lab.bundle").extract({"lab": place}, quiet)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() or path.is_symlink()]


def test_a_newer_format_says_so() -> None:
    sink = io.BytesIO()
    with tarfile.TarFile(fileobj=sink, mode="w") as tar:
        text = json.dumps({"format": FORMAT + 1, "ailab": "9.0"}).encode()
        info = tarfile.TarInfo("bundle.json")
        info.size = len(text)
        tar.addfile(info, io.BytesIO(text))
    sink.seek(0)
    with pytest.raises(BadBundle, match=r"newer ailab \(9\.0\)"):
        Reader(sink, "lab.bundle")


@pytest.mark.parametrize("content", [b"", b"hello", b"\0" * 10240, os.urandom(4096), b'{"format": 1}'])
def test_what_is_no_tar_is_refused(content: bytes) -> None:
    with pytest.raises(BadBundle, match="no whole bundle"):
        Reader(io.BytesIO(content), "x")
