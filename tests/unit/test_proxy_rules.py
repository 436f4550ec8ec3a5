"""What the proxy's own rules make of a request's headers, by the Node that runs the proxy."""

from __future__ import annotations
