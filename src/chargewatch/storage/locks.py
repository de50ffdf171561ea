"""The numbers of PostgreSQL's advisory locks, all in one place: equal numbers are one lock."""

from __future__ import annotations

from enum import IntEnum, unique


@unique
class AdvisoryLock(IntEnum):
    """Who must be alone in a database; docs/storage.md, "Who locks what"."""

    MIGRATION = 7_226_071
    REFRESH = 7_226_072
    REGISTRY = 7_226_073
    """One import, merge or preview at a time; a risk run shares it: what it judges must stay."""
    LEDGER_DAYS = 7_226_074
    RISK_RUN = 7_226_075
    PILE_INDEX = 7_226_076
    NAMES = 7_226_077
    """The first of two keys; the second is the hash of the name that is reserved."""
