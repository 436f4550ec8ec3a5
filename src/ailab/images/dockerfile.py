"""The Dockerfile of a lab's image: a pure function from what goes in to a text that a person can read."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ailab.paths import IMAGE_HOME, IMAGE_LAB, SHARED_FOLDERS

UV_CACHE = "/var/cache/uv"
# 2020-01-01, as in finish_layer.py: for tools that set the times of layers, and for all that reads it while building.
EPOCH = 1577836800
ENVIRONMENT = IMAGE_HOME / "environment"
CONTROL = IMAGE_HOME / "control" / "current"
BUILD = IMAGE_HOME / "image"
WEB_PORT = 8888
# The stages of the build before the image's own: what it stands on, and what it downloads.
_BOTTOM, _FETCHED = "bottom", "fetched"
USER = "1000:1000"


@dataclass(frozen=True)
class Tool:
    """ailab, or a tool, in an environment of its own: `requirements` is the name of its file, `folder` where it is in
    the image; `unused` are paths in the folder that an image does not need."""

    requirements: str
    folder: Path
    unused: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recipe:
    """What an image is made of. The Pythons are paths in the image; `apt` are packages, name -> version, that the
    base does not have yet; `marks` are small files, path -> text; `packages` and `wheels`: whether the lab has some
    beside its stack's, and whether a bundle has brought them."""

    lab: str
    base: str
    python: Path
    own_python: Path
    tools: Sequence[Tool]
    proxy: Path
    marks: Mapping[Path, str] = field(default_factory=dict)
    apt: Mapping[str, str] = field(default_factory=dict)
    packages: bool = False
    wheels: bool = False

    def render(self, labels: Mapping[str, str]) -> str:
        """The Dockerfile. Works with BuildKit of Docker Engine 20.10 and later, and with buildah."""
        return "\n".join([*self._head(), *self._layers(), *self._tail(labels)]) + "\n"

    def _head(self) -> list[str]:
        return [
            f"# The lab {self.lab} as an image, written by ailab. In this folder: docker build -t NAME .",
            "# Behind a mirror, a proxy or a private certificate authority, add what `downloads` and `ca` are to say:",
            "#   --secret id=downloads,src=FILE (lines NAME=value)  --secret id=ca,src=FILE (PEM)",
            f"FROM {self.base} AS {_BOTTOM}",
            f"ENV AILAB_HOME={IMAGE_HOME} LANG=C.UTF-8 HOME={IMAGE_LAB}/.ailab/home PATH={CONTROL}/bin:$PATH",
        ]

    def _layers(self) -> list[str]:
        lines = ["", "# What downloads, and from where; of which nothing stays.", f"COPY build/ {BUILD}/"]
        if self.apt:
            pins = [shlex.quote(f"{name}={version}") for name, version in sorted(self.apt.items())]
            lines += ["", "# Debian packages, in the versions of lab.lock.", _run(f"{BUILD}/apt {' '.join(pins)}")]
        return [
            *lines,
            "",
            "# The Pythons: the environment's, and ailab's own; and uv.",
            f"ADD pythons.tar {IMAGE_HOME}/",
            "",
            "# What all but the framework downloads, while that does.",
            f"FROM {_BOTTOM} AS {_FETCHED}",
            *self._fetching(),
            "",
            # No other stages: uv uses all CPUs, as what compiles does, and a stage's files are copied one by one.
            f"FROM {_BOTTOM}",
            "# The framework: what else changes leaves it as it is, and layers travel side by side.",
            *self._packages("framework.txt", self.python.parent.parent),
            "",
            "# The rest of the stack.",
            *self._packages("stack.txt"),
            "",
            "# ailab's own packages, and its tools.",
            f"COPY --from={_FETCHED} {BUILD}/requirements/control {BUILD}/requirements/control/",
            self._installing(*self._tool_steps()),
            f"ADD proxy.tar {self.proxy}/",
            "",
            "# ailab itself. The lab's folder is open to any account; only its files are not.",
            *self._ailab(),
            *(["", "# The user's packages.", *self._packages("lab.txt")] if self.packages else []),
        ]

    def _fetching(self) -> list[str]:
        own = [f"{BUILD}/requirements/control/{tool.requirements}" for tool in self.tools]
        return [
            f"COPY requirements/stack.txt {BUILD}/requirements/",
            f"COPY requirements/control {BUILD}/requirements/control/",
            self._installing(
                f"{BUILD}/fetch {self.python} {BUILD}/requirements/stack.txt",
                f"{BUILD}/fetch {self.own_python} {' '.join(own)}",
            ),
        ]

    def _ailab(self) -> list[str]:
        site = CONTROL / "lib" / self.own_python.name / "site-packages" / "ailab"
        folders = " ".join(f"{IMAGE_LAB}/{name}" for name in SHARED_FOLDERS)
        return [
            f"COPY ailab {site}/",
            _run(
                f"ln -s {BUILD}/ailab /usr/local/bin/ailab",
                f"rm -rf /var/lib/extrausers && ln -s {IMAGE_LAB}/.ailab/users /var/lib/extrausers",
                "sed -i 's/^\\(passwd\\|group\\):.*/& extrausers/' /etc/nsswitch.conf",
                f"mkdir -p {folders}",
                f"chmod 1777 {IMAGE_LAB} {folders}",
                _finish(self.own_python, site, self.proxy),
            ),
        ]

    def _packages(self, requirements: str, *below: Path) -> list[str]:
        """What a file names, beside what a layer below has put into the environment; `below` is finished with it."""
        steps = (_installed(self.python, {ENVIRONMENT: requirements}), _finish(self.python, *below, ENVIRONMENT))
        return [f"COPY requirements/{requirements} {BUILD}/requirements/", self._installing(*steps)]

    def _installing(self, *steps: str) -> str:
        """A layer that installs; from the wheels that a bundle has brought, where it has."""
        wheels = f"--mount=type=bind,source=wheels,target={IMAGE_HOME}/wheels"
        return _run(*steps, mounts=(wheels,) if self.wheels else ())

    def _tool_steps(self) -> list[str]:
        folders = {tool.folder: f"control/{tool.requirements}" for tool in self.tools}
        # One CPU is idle while packages are installed.
        steps = [
            f"{{ {_finish(self.own_python, self.own_python.parent.parent)} & }}",
            _installed(self.own_python, folders),
        ]
        steps += [f"rm -rf {tool.folder}/{path}" for tool in self.tools for path in tool.unused]
        for path, text in self.marks.items():
            steps.append(f"mkdir -p {path.parent} && printf %s {shlex.quote(text)} >{path}")
        return [*steps, "wait $!", _finish(self.own_python, *folders)]

    def _tail(self, labels: Mapping[str, str]) -> list[str]:
        ailab = [str(CONTROL / "bin/python"), "-I", "-m", "ailab"]
        return [
            "",
            "# The lab's settings.",
            f"COPY lab {IMAGE_HOME}/lab/",
            _run(f"{BUILD}/ailab image seal", _finish(self.python, ENVIRONMENT)),
            "",
            f"VOLUME {IMAGE_LAB}",
            f"WORKDIR {IMAGE_LAB}",
            f"USER {USER}",
            f"EXPOSE {WEB_PORT}",
            "HEALTHCHECK --interval=60s --timeout=30s --start-period=120s \\",
            f"    CMD {_words([*ailab, 'status', '--check'])}",
            f"ENTRYPOINT {_words(['/usr/bin/tini', '--', *ailab])}",
            f"CMD {_words(['up', '--foreground'])}",
            *(f"LABEL {name}={_quoted(value)}" for name, value in labels.items()),
        ]


def _installed(python: Path, folders: Mapping[Path, str]) -> str:
    """The step that puts what requirements files name into environments of `python`, by folder."""
    pairs = [f"{folder} {BUILD}/requirements/{requirements}" for folder, requirements in folders.items()]
    return " ".join([f"{BUILD}/install {python}", *pairs])


def _run(*steps: str, mounts: Sequence[str] = ()) -> str:
    """One layer: its steps, with uv's cache and the way to downloads, neither of which it keeps."""
    options = [
        f"--mount=type=cache,id=ailab-uv,target={UV_CACHE},mode=0755",
        "--mount=type=secret,id=downloads",
        "--mount=type=secret,id=ca",
        *mounts,
    ]
    return "RUN " + " \\\n    ".join(options) + " \\\n    " + " \\\n && ".join(steps)


def _finish(python: Path, *folders: Path) -> str:
    return f"{python} -I -B {BUILD}/finish_layer.py {' '.join(map(str, folders))}"


def _words(words: Sequence[str]) -> str:
    return "[" + ", ".join(_quoted(word) for word in words) + "]"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
