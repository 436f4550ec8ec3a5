"""Input that nobody should send: to the command line, the API and the portal. Seeded, so that a failure repeats."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

NUMBERS = [
    "9223372036854775808", "-9223372036854775809", "9" * 400, "9" * 5000, "-1", "1.5", "nan", "inf", "-inf",
    "1e999", "0x1f", "١٢", "", " 1", "1_000", "--1", "+", "0" * 300 + "x",
]  # fmt: skip
TEXTS = [
    "\0", "a\0b", "\udcff", "a\ud800b", "\x1b[31m", "é" * 300, "x" * 100_000, "../../etc/passwd", "/", "~",
    ".", "..", "%00", "%ff", "a\nb", "\r", "\u2028", "'; DROP TABLE jobs; --", "{}", "{x}", "{0}", "%s",
    "$(id)", "=", ":", "@", ",", "--", "-", "-x", "a b", "job-", "job-x", "12:", ":ok", "12:maybe", "1-",
    "5-1", "1-99999999", "25:99", "2026-13-40", "9" * 30 + "h", "0001-01-01", "9999-12-31 23:59:59", "[", "]",
    "nan", "https://[", "http://x:99999/",
]  # fmt: skip
VALUES: list[Any] = [
    None, True, [], {}, [[]], {"": ""}, 0, -1, 2**63, 2**64, -(2**70), 1e308, float("nan"), float("inf"), 0.5,
    [None], ["a", 1], {"a": {"b": []}}, "", *TEXTS,
]  # fmt: skip


@dataclass(frozen=True)
class Call:
    """A request: what is not a good one of its route is in one or more of its parts."""

    method: str
    path: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


def quoted(text: str) -> str:
    """A text as a part of an address, whatever is in it."""
    return "".join(f"%{byte:02x}" for byte in text.encode("utf-8", "surrogatepass"))


def nested(depth: int) -> Any:
    value: Any = 1
    for _turn in range(depth):
        value = [value]
    return value


def spoilt(good: dict[str, Any], chance: random.Random) -> bytes:
    """A JSON body that was good once."""
    body: Any = json.loads(json.dumps(good))
    match chance.randint(0, 7):
        case 0:
            text = json.dumps(body).encode()
            return text[: chance.randint(0, len(text) - 1)] + chance.randbytes(chance.randint(0, 3))
        case 1:
            return chance.choice(
                [b"", b"\xff", b"\0", b"[" * 50_000, b"{" * 50_000, b'{"a":' * 20_000, b"nul", b"9" * 5000]
            )
        case 2:
            body = chance.choice(VALUES)
        case 3:
            body[chance.choice(list(body))] = nested(900)
        case _:
            for _turn in range(chance.randint(1, 3)):
                spoil(body, chance)
    return json.dumps(body).encode()


def spoil(body: dict[str, Any], chance: random.Random) -> None:
    """Take something out, put something in, or change something, at some depth."""
    inner = [value for value in body.values() if isinstance(value, dict) and value]
    if inner and chance.random() < 0.7:
        spoil(chance.choice(inner), chance)
    elif body and chance.random() < 0.2:
        del body[chance.choice(list(body))]
    else:
        name = chance.choice([*body, *body, chance.choice(TEXTS)])
        body[name] = chance.choice([*VALUES, *NUMBERS])


def call(routes: Sequence[tuple[str, set[str]]], bodies: dict[str, dict[str, Any]], chance: random.Random) -> Call:
    """A malformed request to one of `routes`; `bodies` are good ones, by how the path ends."""
    path, methods = chance.choice(list(routes))
    method = chance.choice(sorted(methods) * 4 + ["PUT", "PATCH", "DELETE", "POST", "GET", "OPTIONS", "TRACE", "BREW"])
    while "{" in path:
        head, _brace, rest = path.partition("{")
        value = "1" if chance.random() < 0.3 else chance.choice([*NUMBERS, *TEXTS[:30]])
        path = head + quoted(value[:3000]) + rest.partition("}")[2]
    if chance.random() < 0.5:
        names = ["limit", "state", "owner", "name", "array", "member", "after", "job", "code", chance.choice(TEXTS)]
        pairs = [
            f"{quoted(chance.choice(names)[:300])}={quoted(chance.choice([*NUMBERS, *TEXTS])[:3000])}" for _turn in "ab"
        ]
        path += "?" + "&".join(pairs)
    headers = {"Accept": chance.choice(["text/html", "application/json", "*/*", "\xff", ""])}
    headers["Accept-Language"] = chance.choice(["zh", "en", "xx;q=nan", "\xff" * 50, ","])
    if method == "GET":
        return Call(method, path, headers)
    good = next((body for end, body in bodies.items() if path.partition("?")[0].endswith(end)), {"a": 1})
    kinds = ["application/json"] * 6 + [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=",
        "\xff",
    ]
    headers["Content-Type"] = chance.choice(kinds)
    if chance.random() < 0.2:
        headers["Origin"] = chance.choice(["null", "http://[", "http://evil.example", "\xff"])
    return Call(method, path, headers, spoilt(good, chance))


# Commands that do something only where their words mean something, and how many words they take.
COMMANDS = {
    "events": 0, "run": 1, "logs": 1, "rerun": 1, "stop": 1, "jobs show": 1, "jobs diff": 2,
    "jobs compare": 2, "env diff": 2, "env pin": 1, "env unpin": 1, "env use": 1, "env add": 1,
    "env remove": 1, "env import": 1, "env export": 0, "env verify": 1, "env fingerprint": 1,
    "env compare": 1, "env try": 1, "image tag": 1, "image push": 1, "image pull": 1, "image load": 1,
    "image verify": 0, "bundle install": 1, "up": 0, "open": 0, "init": 1,
}  # fmt: skip
OPTIONS = {
    "events": ["--limit"], "logs": ["--tail"], "up": ["--port"], "open": ["--user"], "stop": ["--no-wait"],
    "jobs compare": ["--metric"], "env export": ["--format"], "env try": ["--python"],
    "image tag": ["--generation"], "image push": ["--generation"], "image verify": ["--generation"],
    "init": ["--port", "--stack"],
    "run": ["--name", "--workers", "--strategy", "--cpus", "--memory", "--gpus", "--gpu-fraction", "--priority",
            "--after", "--retries", "--timeout", "--grace", "--env", "--array", "--at",
            "--every", "--seed", "--input", "--cwd", "--file"],
}  # fmt: skip
# Nothing that a machine hands to a program has a NUL in it.
WORDS = [text for text in (*NUMBERS, *TEXTS) if "\0" not in text and "\ud800" not in text]


def command_line(chance: random.Random) -> list[str]:
    """The words of a command of which at least one makes no sense."""
    command = chance.choice(list(COMMANDS))
    words = [chance.choice(WORDS) for _turn in range(COMMANDS[command])]
    if command in ("up", "init", "open", "image verify", "env export", "events") or chance.random() < 0.6:
        for _turn in range(chance.randint(1, 3)):
            option = chance.choice(OPTIONS.get(command, ["--nonsense", "-z", "--json=1"]))
            words = [option, *([] if option == "--no-wait" else [chance.choice(WORDS)]), *words]
    return [*command.split(), *words, *(["--json"] if chance.random() < 0.3 and command != "run" else [])]
