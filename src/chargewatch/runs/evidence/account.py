"""What of a verdict an evidence file is given and what is computed from it, in words."""

from __future__ import annotations

from datetime import UTC, datetime

from chargewatch.domain.times import DAY_S
from chargewatch.runs.evidence.grounds import Grounds


def _day(number: float) -> str:
    return datetime.fromtimestamp(number * DAY_S, UTC).date().isoformat()


def given_of(grounds: Grounds) -> dict[str, str]:
    """Return what is taken as the run had it, by a word for each."""
    excerpt = grounds.excerpt
    others = int((~excerpt.own).sum())
    rows = excerpt.statistics.sessions
    away = int((~excerpt.own[rows.connector]).sum())
    vehicles = excerpt.known.weights.node_tail.size
    changed = int(excerpt.known.changes.taken[excerpt.own].sum())
    return {
        "closed_days": (
            "what the days before "
            + (_day(excerpt.days[0]) if excerpt.days[1] else "the run")
            + " say in sum, as the runs of those days left it"
        ),
        "city": (
            "spreads of sessions, vehicles, converters and cables; the population of errors; "
            "means of models, classes of converters, kinds of sessions and cables with their "
            "covariance"
        ),
        "weights": "how far each session, vehicle and verification is believed",
        "others": (
            f"estimates of {others} other connectors and {away} sessions there of the {vehicles} "
            "vehicles that came to this one's feeder"
        ),
        "changes": f"{changed} changes of errors under the feeder, with their days",
        "situations": f"{len(excerpt.situations)} situations in which they err otherwise",
        "signals": f"{len(grounds.signals)} signals, each with the records that it was found in",
    }


COMPUTED = (
    *("statistics of the open days", "information of each kind of evidence", "relative_error"),
    *("standard_uncertainty", "budget", "conflicts", "p_nonconforming", "verdict", "reason"),
    *("tier", "priority_money"),
)
"""What is computed again, in the order of the computation."""
