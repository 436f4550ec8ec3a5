"""What a package lacked when it was built from its source, as Debian and Ubuntu call it."""

from __future__ import annotations

import re

# A program that a build runs (a pattern), and the apt package that has it.
_PROGRAMS = {
    r"(?:[\w-]+-)?(?:gcc|g\+\+|cc|c\+\+|make)|clang(?:\+\+)?|cc1plus": "build-essential",
    "cmake": "cmake",
    "ninja": "ninja-build",
    r"(?:[\w-]+-)?gfortran": "gfortran",
    "cargo|rustc": "cargo",
    "pkg-config|pkgconf": "pkg-config",
    "swig": "swig",
    "git": "git",
    "mpicc|mpicxx": "libopenmpi-dev",
    "pg_config": "libpq-dev",
    "mysql_config": "default-libmysqlclient-dev",
    "xslt-config|xml2-config": "libxslt1-dev",
    "curl-config": "libcurl4-openssl-dev",
    "krb5-config": "libkrb5-dev",
    "gdal-config": "libgdal-dev",
    "geos-config": "libgeos-dev",
    "nc-config": "libnetcdf-dev",
    "llvm-config": "llvm-dev",
}
# A C header (a pattern), and the apt package that has it.
_HEADERS = {
    r"Python\.h": "python3-dev",
    r"ffi\.h": "libffi-dev",
    r"openssl/\w+\.h": "libssl-dev",
    r"libxml/\w+\.h": "libxml2-dev",
    r"libxslt/\w+\.h": "libxslt1-dev",
    r"libpq-fe\.h": "libpq-dev",
    r"mysql\.h": "default-libmysqlclient-dev",
    r"portaudio\.h": "portaudio19-dev",
    r"sndfile\.h": "libsndfile1-dev",
    r"hdf5\.h": "libhdf5-dev",
    r"netcdf\.h": "libnetcdf-dev",
    r"gdal\.h": "libgdal-dev",
    r"geos_c\.h": "libgeos-dev",
    r"proj\.h": "libproj-dev",
    r"zlib\.h": "zlib1g-dev",
    r"jpeglib\.h": "libjpeg-dev",
    r"png\.h": "libpng-dev",
    r"ft2build\.h": "libfreetype-dev",
    r"cairo\.h": "libcairo2-dev",
    r"curl/curl\.h": "libcurl4-openssl-dev",
    r"gssapi/\w+\.h": "libkrb5-dev",
    r"(?:ldap|lber)\.h": "libldap-dev",
    r"sasl/sasl\.h": "libsasl2-dev",
    r"gmp\.h": "libgmp-dev",
    r"mpi\.h": "libopenmpi-dev",
    r"sqlite3\.h": "libsqlite3-dev",
    r"snappy-c\.h": "libsnappy-dev",
    r"graphviz/\w+\.h": "libgraphviz-dev",
    r"cblas\.h": "libopenblas-dev",
}
# Where a build script says it in words of its own.
_WORDS = {
    r"(?i)can't find rust compiler|cargo, the rust package manager, is not installed": "cargo",
    r"(?i)unknown compiler\(s\)|No CMAKE_C\w*_COMPILER could be found|linker `cc` not found": "build-essential",
    r"(?i)CMake must be installed|could not find CMake": "cmake",
    r"pg_config executable not found": "libpq-dev",
    r"libxml2 and libxslt": "libxslt1-dev",
    r"(?i)can not find valid pkg-config name": "pkg-config",
    r"headers or library files could not be found for jpeg": "libjpeg-dev",
}


def apt_packages(said: str) -> list[str]:
    """The apt packages that a failed build asks for, by what it printed; a compiler's where it does not say."""
    found = [package for program, package in _PROGRAMS.items() if _lacks_program(said, program)]
    found += [package for header, package in _HEADERS.items() if re.search(rf"(?<![\w/]){header}: No such file", said)]
    found += [package for words, package in _WORDS.items() if re.search(words, said)]
    return list(dict.fromkeys(found)) or ["build-essential"]


def _lacks_program(said: str, program: str) -> bool:
    """As shells, Python's subprocess, distutils and CMake say that there is no such program."""
    quoted = rf"['\"`](?:\S*/)?(?:{program})['\"`]"
    bare = rf"(?<![\w/.-])(?:{program}): (?:command )?not found"
    return re.search(rf"{quoted} failed: No such file|No such file or directory: {quoted}|{bare}", said) is not None
