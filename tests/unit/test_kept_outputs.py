"""What is kept of a cell's output while no page looks is what a page would show."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jupyter_server.services.kernels.connection.base import serialize_msg_to_ws_v1

from ailab.access import kept_outputs
from ailab.access.kept_outputs import Execution, _asked


def message(kind: str, **content: Any) -> dict[str, Any]:
    return {"msg_type": kind, "header": {"msg_type": kind}, "content": content}


def stream(text: str, name: str = "stdout") -> dict[str, Any]:
    return message("stream", name=name, text=text)


def display(text: str, shown_as: str = "", kind: str = "display_data") -> dict[str, Any]:
    transient = {"transient": {"display_id": shown_as}} if shown_as else {}
    return message(kind, data={"text/plain": text}, metadata={}, **transient)


def kept(*messages: dict[str, Any]) -> list[str]:
    """What an execution has kept, an output a text."""
    execution = Execution("c", "code", "page")
    for one in messages:
        execution.take(one)
    return [
        str(one.get("text") or one.get("data", {}).get("text/plain") or one.get("ename")) for one in execution.outputs
    ]


@pytest.mark.parametrize(
    ("messages", "shown"),
    [
        ([stream("a\n"), stream("b\n")], ["a\nb\n"]),
        ([stream("a"), stream("b", "stderr"), stream("c")], ["a", "b", "c"]),
        ([stream("a"), message("clear_output", wait=False)], []),
        ([stream("a"), message("clear_output", wait=True)], ["a"]),
        ([stream("a"), message("clear_output", wait=True), stream("b"), stream("c")], ["bc"]),
        ([display("a", "one"), stream("x"), display("b", "one", "update_display_data")], ["b", "x"]),
        ([display("b", "nowhere", "update_display_data")], []),
        ([message("error", ename="ValueError", evalue="", traceback=[])], ["ValueError"]),
    ],
    ids=[
        "one stream",
        "two streams",
        "cleared",
        "to be cleared",
        "cleared by the next",
        "a display",
        "none such",
        "error",
    ],
)
def test_as_a_page_shows_it(messages: list[dict[str, Any]], shown: list[str]) -> None:
    assert kept(*messages) == shown


def test_no_more_than_so_many_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_outputs, "MOST_BYTES", 250)
    assert len(kept(*[display("x" * 50)] * 10)) == 2
    assert kept(display("x" * 150), message("clear_output", wait=False), stream("short")) == ["short"]


def request(kind: str = "execute_request", **changes: Any) -> dict[str, Any]:
    content = {"code": "1 + 1", "silent": False}
    header = {"msg_id": "m", "session": "p", "msg_type": kind}
    return {
        "channel": "shell",
        "header": header,
        "parent_header": {},
        "metadata": {"cellId": "c"},
        "content": content,
    } | changes


def as_v1(asked: dict[str, Any]) -> bytes:
    parts = [json.dumps(asked[name]).encode() for name in ("header", "parent_header", "metadata", "content")]
    return bytes(serialize_msg_to_ws_v1(parts, asked["channel"]))


def test_what_a_page_asks_to_run_in_both_ways_of_writing() -> None:
    for protocol, written in (("v1.kernel.websocket.jupyter.org", as_v1), ("", json.dumps)):
        found = _asked(written(request()), protocol)
        assert found is not None and found[0] == "m"
        assert (found[1].cell, found[1].code, found[1].page) == ("c", "1 + 1", "p")
        for other in (
            request("kernel_info_request"),
            request(metadata={}),
            request(content={"code": "x", "silent": True}),
            request(channel="control"),
        ):
            assert _asked(written(other), protocol) is None
    assert _asked(b"\x00", "v1.kernel.websocket.jupyter.org") is None and _asked("{", "") is None
