"""Whether a run is full or goes on from an earlier one, and what it takes over from that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import orjson

from chargewatch import __version__
from chargewatch.domain.times import EPOCH, SLOT_S
from chargewatch.risk.memory import STATE_VERSION
from chargewatch.runs.load import Loaded
from chargewatch.runs.owed import ODD_BILL
from chargewatch.runs.rollups import FirstDays, rollup_kinds
from chargewatch.runs.scan import Scan, full_scan, next_scan
from chargewatch.runs.state import RunState, engine_slot, engine_version, unpack_state
from chargewatch.runs.verify_signed import Verified
from chargewatch.signals.declarations import Resets
from chargewatch.storage.database import Database
from chargewatch.storage.rollup_due import mark_again
from chargewatch.storage.runs import results as store


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """Full, or on from an earlier run."""

    mode: str
    first: datetime  # the engine reads from here
    window_first: datetime
    prior: dict[str, Any] | None
    late: FirstDays
    reason: str


async def mark_late(database: Database, late: FirstDays) -> None:
    """Make days due again of which a run that failed took note: the next run must see them."""
    async with database.raw() as connection:
        for kind in rollup_kinds():
            days = late.of(kind).items()
            pairs = [(number, EPOCH.date() + timedelta(days=day)) for number, day in days]
            await mark_again(connection, kind, pairs)


async def first_unjudged_day(database: Database) -> date | None:
    """Return the first UTC day that the next nightly run reads anyway; None without a run.

    Only by what is due does it see that something came for an earlier day: whoever refreshes
    between two runs leaves those days to it.
    """
    newest = await store.newest_run(database)
    if newest is None:
        return None
    at: datetime = newest["as_of"]
    return (at.astimezone(UTC) - timedelta(days=1)).date()


async def make_plan(
    database: Database,
    as_of: datetime,
    *,
    full: bool,
    days: float,
    late: FirstDays,
    config: Mapping[str, Any],
) -> RunPlan:
    """Return whether to go on from the newest earlier run, or why not.

    Where: late: the earliest day with new readings of each instrument.
    """
    window_first = as_of - timedelta(days=days)
    window_first = window_first.replace(hour=0, minute=0, second=0, microsecond=0)
    prior = None if full else await store.prior_run(database, before=as_of)
    reason = "asked for" if full else "" if prior else "no earlier run to go on from"
    if prior and prior["version"] != __version__:
        prior, reason = None, "the last run was of another version"
    if prior and orjson.loads(prior["configuration"]) != orjson.loads(orjson.dumps(config)):
        prior, reason = None, "the settings have changed"
    if prior and engine_version(prior["state"]) != STATE_VERSION:
        prior, reason = None, "the last run left a state of another version of the engine"
    if prior and prior["as_of"] <= window_first:
        prior, reason = None, "the last run is older than the window"
    if prior is None:
        return _full(window_first, late=late, reason=reason)
    first = datetime.fromtimestamp(engine_slot(prior["state"]) * float(SLOT_S), UTC)
    return RunPlan(
        mode="nightly",
        first=max(min(first, as_of), window_first),
        window_first=window_first,
        prior=prior,
        late=late,
        reason=f"on from run {prior['run_id']}",
    )


def _full(window_first: datetime, *, late: FirstDays, reason: str) -> RunPlan:
    return RunPlan(
        mode="full",
        first=window_first,
        window_first=window_first,
        prior=None,
        late=late,
        reason=reason,
    )


def full_instead(plan: RunPlan, reason: str) -> RunPlan:
    """Return the plan of a full run in the place of a nightly one."""
    return _full(plan.window_first, late=plan.late, reason=reason)


def state_of(plan: RunPlan, loaded: Loaded) -> RunState:
    """Return what the run goes on from; an empty state of a full one."""
    if plan.prior is None:
        unknown = np.full(loaded.inputs.fleet.size, np.nan)
        return RunState(
            engine=None,
            findings=[],
            verified=Verified.none(),
            usual_gap_s=unknown,
            resets=Resets.none(),
            odd_bills=np.empty(0, ODD_BILL),
        )
    return unpack_state(plan.prior["state"], loaded.registry)


def scan_of(plan: RunPlan, as_of: datetime) -> Scan:
    """Return which records are checked anew."""
    if plan.prior is None:
        return full_scan(plan.window_first, as_of)
    return next_scan(
        plan.window_first,
        as_of,
        prior_as_of=plan.prior["as_of"],
        prior_started=plan.prior["started_at"],
        late=plan.late.connectors,
    )
