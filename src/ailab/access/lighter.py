"""What the hub and the workspaces need not load: importing this first keeps it out of their process."""

from __future__ import annotations

import sys

# A checker of IRIs, which jsonschema loads where it is installed: it compiles a grammar for a second at each start.
# With None here the import fails as if it were not installed, which jsonschema expects; we have no IRI to check.
sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]  # how the import system marks what must not load
