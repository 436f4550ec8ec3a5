"""The doctor: an ordered table of checks, each of which says what it saw, how bad it is, and what to type."""
