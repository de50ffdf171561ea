"""The numbers of PostgreSQL's advisory locks, all in one place: equal numbers are one lock."""

from __future__ import annotations

from enum import IntEnum, unique

from chargewatch.storage import sql


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
    CREDIT = 7_226_084
    """One grading of a month at a time."""
    OUTCOMES = 7_226_079
    """One count of flags' outcomes at a time."""
    AUDIT = 7_226_078
    """One entry after the other, in the order of their commits; always the last lock."""


# A bigint each: the locks of two keys, of NAMES, are others.
LOCK = sql.statement("lock", "SELECT pg_advisory_lock(CAST(:key AS bigint))")
LOCK_SHARED = sql.statement("lock shared", "SELECT pg_advisory_lock_shared(CAST(:key AS bigint))")
TRY_LOCK = sql.statement("lock if free", "SELECT pg_try_advisory_lock(CAST(:key AS bigint))")
UNLOCK = sql.statement("unlock", "SELECT pg_advisory_unlock(CAST(:key AS bigint))")
LOCK_IN_TRANSACTION = sql.statement(
    "lock in transaction", "SELECT pg_advisory_xact_lock(CAST(:key AS bigint))"
)
WAIT_10_S = sql.statement("wait 10 s for locks", "SET LOCAL lock_timeout = '10s'")
KEEP_RETENTION_WAITING = sql.statement(
    "keep retention waiting", "LOCK TABLE rollup_pending IN ROW EXCLUSIVE MODE"
)
KEEP_INGEST_WAITING = sql.statement(
    "keep ingest waiting", "LOCK TABLE rollup_pending IN SHARE MODE"
)
