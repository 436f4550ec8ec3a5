"""`--watch`: a text that is made anew every second, in its place on a terminal, until Ctrl-C."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ailab.cli.output import as_typed

EVERY_SECONDS = 1.0


def watch(text: Callable[[], str]) -> None:
    """Show what `text` returns. Ctrl-C is no failure here."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    never = threading.Event()
    try:
        with Live(console=Console(), auto_refresh=False, screen=Console().is_terminal) as live:
            live.update(Text(as_typed(text())), refresh=True)
            while not never.wait(EVERY_SECONDS):
                live.update(Text(as_typed(text())), refresh=True)
    except KeyboardInterrupt:
        return
