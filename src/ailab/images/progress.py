"""How far the engine is with an image's layers, from the documents that it streams while it pushes, pulls or loads."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ailab.errors import AilabError
from ailab.i18n import _

_DONE = ("Pushed", "Layer already exists", "Mounted from", "Pull complete", "Already exists")
_MOVES = ("Pushing", "Downloading", "Loading layer")


class Refused(AilabError):
    """The engine broke off; `message` is its own words."""


def follow(stream: Iterable[dict[str, Any]], tell: Callable[[str], None]) -> dict[str, Any]:
    """Read what the engine says to its end, telling how far it is; all that it notes beside the progress.

    The documents are those of Docker's API (POST /images/create, /images/{name}/push, /images/load). Raises `Refused`.
    """
    layers: dict[str, bool] = {}
    moved: dict[str, int] = {}
    noted: dict[str, Any] = {}
    for document in stream:
        if "error" in document:
            detail = document.get("errorDetail") or {}
            raise Refused(str(detail.get("message") or document["error"]))
        noted |= document.get("aux") or {}
        layer, status = document.get("id"), str(document.get("status", ""))
        # A pull's first line is about a tag, not a layer.
        if not layer or status.startswith("Pulling from"):
            continue
        layers[layer] = layers.get(layer, False) or status.startswith(_DONE)
        if status.startswith(_MOVES):
            moved[layer] = (document.get("progressDetail") or {}).get("current", 0)
        tell(
            _("{done} of {all} layers, {size} MB").format(
                done=sum(layers.values()), all=len(layers), size=sum(moved.values()) // 10**6
            )
        )
    return noted
