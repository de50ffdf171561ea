"""Which finished run counts as the newest."""

from __future__ import annotations

from datetime import timedelta

MOST_AHEAD = timedelta(days=1)
"""How far after now a run's `as_of` may lie."""

NOT_AHEAD = "as_of < now() + interval '1 day'"
"""A run from when the clock was wrong must not stay the newest one for years."""
