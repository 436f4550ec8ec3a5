"""What a bench prints: one row for each limit, ours beside a peer's where there is one."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """One figure and its limit. `limit` is the ratio's where there is a peer, else our own's, in `unit`."""

    title: str
    unit: str
    ours: float
    limit: float
    peer: float | None = None

    @property
    def ratio(self) -> float | None:
        return None if self.peer is None else self.ours / self.peer

    @property
    def holds(self) -> bool:
        return (self.ours if self.ratio is None else self.ratio) <= self.limit

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"ratio": self.ratio, "holds": self.holds}

    def __str__(self) -> str:
        mine = f"{self.title:<34} {self.ours:8.2f} {self.unit:<2}"
        beside = " " * 31 if self.peer is None else f"  peer {self.peer:8.2f} {self.unit:<2}  ratio {self.ratio:5.2f}"
        return f"{mine}{beside}  (at most {self.limit:g}{'' if self.holds else '; MISSED'})"


def show(title: str, rows: list[Row], more: dict[str, Any], *, as_json: bool) -> int:
    """Print the rows, with `more` in the JSON document alone; the exit status, 1 when a limit does not hold."""
    ok = all(row.holds for row in rows)
    if as_json:
        print(json.dumps({"title": title, "ok": ok, "rows": [row.to_json() for row in rows], **more}, indent=2))
    else:
        print("\n".join([title, *map(str, rows)]))
    return 0 if ok else 1
