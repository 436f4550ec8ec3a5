"""Changes where a Linux program looks for its libraries, in place: no tool to fetch, nothing of it is run."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from ailab.errors import AilabError
from ailab.i18n import _

# Names and numbers of the ELF specification (System V ABI, "Dynamic Section"), 64-bit little-endian.
_PT_LOAD, _PT_DYNAMIC = 1, 2
_DT_NULL, _DT_NEEDED, _DT_STRTAB, _DT_SYMTAB, _DT_STRSZ = 0, 1, 5, 6, 10
_DT_SONAME, _DT_RPATH, _DT_RUNPATH = 14, 15, 29
_SEGMENT = struct.Struct("<IIQQQQQQ")
_ENTRY = struct.Struct("<qQ")
_SYMBOL_BYTES = 24


class NotPatchable(AilabError):
    """The program is of another format, or has no room for the new path."""


def search_path(program: Path) -> str | None:
    """Where `program` looks for libraries first (RPATH or RUNPATH); None when it names no place."""
    data = program.read_bytes()
    found = _find(data)
    return None if found is None else _text(data, found[1])


def set_search_path(program: Path, path: str) -> None:
    """Make `program` look for its libraries in `path` first; one that names no place is left as it is.

    The new path is written over the old one, so it must not be longer, and the entry becomes an RPATH, which
    LD_LIBRARY_PATH does not override. Raises `NotPatchable`.
    """
    data = bytearray(program.read_bytes())
    found = _find(data)
    if found is None:
        return
    entry, at = found
    old = _text(data, at).encode()
    new = path.encode()
    if len(new) > len(old) or any(at < other <= at + len(old) for other in _other_strings(data)):
        raise NotPatchable(
            _("{program} cannot be made to run from another place.").format(program=program),
            remedy=_("Install a Python where the lab's account can run it, as under /opt."),
        )
    data[at : at + len(old)] = new.ljust(len(old), b"\0")
    struct.pack_into("<q", data, entry, _DT_RPATH)
    unfinished = program.with_name(program.name + ".new")
    unfinished.write_bytes(data)
    unfinished.chmod(program.stat().st_mode & 0o7777)
    unfinished.replace(program)


def _find(data: bytes | bytearray) -> tuple[int, int] | None:
    """Offsets in the file: of the RPATH or RUNPATH entry, and of its text."""
    strings = _strings(data)
    for offset, tag, value in _dynamic(data):
        if tag in (_DT_RPATH, _DT_RUNPATH):
            return offset, strings[0] + value
    return None


def _segments(data: bytes | bytearray) -> Iterator[tuple[int, int, int, int]]:
    """(type, offset in the file, address, bytes in the file) of each segment."""
    if data[:6] != b"\x7fELF\x02\x01":
        raise NotPatchable(_("This is not a 64-bit Linux program."), remedy=_("Name another interpreter."))
    start, size, count = (*struct.unpack_from("<Q", data, 32), *struct.unpack_from("<HH", data, 54))
    for number in range(count):
        kind, _flags, offset, address, _physical, length, *_rest = _SEGMENT.unpack_from(data, start + number * size)
        yield kind, offset, address, length


def _offset(data: bytes | bytearray, address: int) -> int:
    for kind, offset, start, length in _segments(data):
        if kind == _PT_LOAD and start <= address < start + length:
            return address - start + offset
    raise NotPatchable(_("This is not a 64-bit Linux program."), remedy=_("Name another interpreter."))


def _dynamic(data: bytes | bytearray) -> Iterator[tuple[int, int, int]]:
    """(offset in the file, tag, value) of each entry of the dynamic section; nothing for a static program."""
    for kind, offset, _address, length in _segments(data):
        if kind == _PT_DYNAMIC:
            for at in range(offset, offset + length, _ENTRY.size):
                tag, value = _ENTRY.unpack_from(data, at)
                if tag == _DT_NULL:
                    return
                yield at, tag, value


def _strings(data: bytes | bytearray) -> tuple[int, int]:
    """Offset and length of the dynamic string table."""
    values = {tag: value for _at, tag, value in _dynamic(data)}
    if _DT_STRTAB not in values:
        return 0, 0
    return _offset(data, values[_DT_STRTAB]), values.get(_DT_STRSZ, 0)


def _other_strings(data: bytes | bytearray) -> Iterator[int]:
    """Where other texts of the table begin: linkers let one text be the end of another."""
    table, _length = _strings(data)
    symbols = 0
    for _at, tag, value in _dynamic(data):
        if tag in (_DT_NEEDED, _DT_SONAME):
            yield table + value
        if tag == _DT_SYMTAB:
            symbols = _offset(data, value)
    # By convention of every linker the symbol table ends where the string table begins.
    for at in range(symbols, table, _SYMBOL_BYTES) if 0 < symbols < table else ():
        yield table + struct.unpack_from("<I", data, at)[0]


def _text(data: bytes | bytearray, at: int) -> str:
    return bytes(data[at : data.index(b"\0", at)]).decode()
