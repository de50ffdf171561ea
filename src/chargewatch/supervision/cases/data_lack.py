"""Whether there are data to say that a flag was not confirmed: silence clears nobody."""

from __future__ import annotations

from datetime import date
from zoneinfo import ZoneInfo

from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.domain.verdict import Tier
from chargewatch.storage.office import cases as rows
from chargewatch.storage.pages import city as city_rows
from chargewatch.storage.pages import pile as pile_rows
from chargewatch.supervision.cases.model import Case

LACKS = {
    "unregistered": "it is not in the registry any more",
    "no_run": "no risk run has finished yet",
    "not_assessed": "the newest run has not assessed it",
    "grey": "it is grey: its data say nothing",
    "silence": "nothing is heard of it",
    "not_judged": "the platform could not judge its station's data",
}
"""What can be missing, and how it is told; the last two are codes of open signals."""


async def lack_of_data(connection: AsyncConnection, case: Case) -> str:
    """Return the lack for which nobody can be cleared of this case; "" when somebody can.

    A verification on or after the day from which the pile was flagged says more than any run.
    """
    connector_id = None
    lack = ""
    if case.connector is not None:
        pile = await pile_rows.pile(
            connection,
            case.connector,
            scope=None,
            station_id=case.station_id,
            operator_id=case.operator_id,
        )
        connector_id = None if pile is None else pile["connector_id"]
        lack = await _lack_of_pile(connection, connector_id)
    lack = lack or await _told_by_signals(connection, case)
    if not lack or connector_id is None:
        return lack
    verified = await rows.verified_since(connection, connector_id, since=_from_day(case))
    return "" if verified else lack


def _from_day(case: Case) -> date:
    """Return the day from which a verification bears on a case, as early as any zone has it."""
    since = min(case.flagged_at or case.opened_at, case.opened_at)
    return since.astimezone(ZoneInfo("Etc/GMT+12")).date()


async def _lack_of_pile(connection: AsyncConnection, connector_id: int | None) -> str:
    if connector_id is None:
        return "unregistered"
    run = await city_rows.newest_run(connection)
    if run is None:
        return "no_run"
    assessment = await pile_rows.assessment_of(connection, connector_id, run_id=run["run_id"])
    if assessment is None:
        return "not_assessed"
    return "grey" if assessment["tier"] == Tier.GREY else ""


async def _told_by_signals(connection: AsyncConnection, case: Case) -> str:
    codes = await rows.open_signal_codes(
        connection,
        [case.subject, f"station:{case.station_id}"],
        operator_id=case.operator_id,
        station_id=case.station_id,
    )
    return next((code for code in LACKS if code in codes), "")
