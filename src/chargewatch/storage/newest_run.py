"""Which finished run counts as the newest."""

from __future__ import annotations

from datetime import timedelta

from chargewatch.storage import sql

MOST_AHEAD = timedelta(days=1)
"""How far after now a run's `as_of` may lie."""

NOT_AHEAD = "as_of < now() + interval '1 day'"
"""A run from when the clock was wrong must not stay the newest one for years."""

NEWEST_RUN = sql.statement(
    "newest run",
    f"""
SELECT run_id, mode, as_of, data_from, data_to, started_at, finished_at, version, configuration,
  result_digest, summary
FROM risk_run
WHERE state = 'finished'
  AND CASE WHEN CAST(:run_id AS bigint) IS NULL THEN {NOT_AHEAD} ELSE run_id = :run_id END
ORDER BY as_of DESC, run_id DESC LIMIT 1
""",  # noqa: S608 - a constant
)
"""The newest finished run, or the finished run of a number."""
NOW = sql.statement("now", "SELECT now()")
