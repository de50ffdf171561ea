"""A finished charging session as its station tells it: each column, and where it goes.

This is the only list of a session's columns. The table and what ingest writes into it, the
arrays of a risk run, Parquet files, the API's answers and the wire's documentation follow from it.
What a risk run does with a column stands where it does it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from chargewatch.domain.columns import Column, ValueKind, columns_of


@dataclass(frozen=True)
class SessionColumn(Column):
    """One column of a session; every one is stored and exported to Parquet."""

    note: str = ""  # what the wire's documentation adds
    in_api: bool = True  # in the API's answers
    in_runs: bool = False  # in the arrays of a risk run: a number or a time
    later: bool = False  # the contract got it later: sessions and files of before don't have it


@dataclass(frozen=True, kw_only=True, slots=True)
class Session:
    """One session, without its connector; None: not told.

    Prices are in `periods`: JSON, a list of objects with from, to, energy_wh, energy_price and
    service_price.
    """

    session: Annotated[str, SessionColumn(ValueKind.LABEL)]
    vehicle: Annotated[
        str | None, SessionColumn(ValueKind.PSEUDONYM, note="pseudonym, never a plain VIN")
    ]
    started_at: Annotated[datetime, SessionColumn(ValueKind.MOMENT, in_runs=True)]
    ended_at: Annotated[datetime, SessionColumn(ValueKind.MOMENT, in_runs=True)]
    start_wh: Annotated[float, SessionColumn(ValueKind.ENERGY, in_runs=True)]
    stop_wh: Annotated[float, SessionColumn(ValueKind.ENERGY, in_runs=True)]
    billed_wh: Annotated[float, SessionColumn(ValueKind.ENERGY, in_runs=True)]
    currency: Annotated[str | None, SessionColumn(ValueKind.CURRENCY)]
    energy_fee: Annotated[str | None, SessionColumn(ValueKind.MONEY, in_runs=True)]
    service_fee: Annotated[str | None, SessionColumn(ValueKind.MONEY, in_runs=True)]
    other_fee: Annotated[
        str | None,
        SessionColumn(ValueKind.MONEY, in_runs=True, later=True, note="parking, occupancy"),
    ]
    discount: Annotated[
        str | None,
        SessionColumn(
            ValueKind.DISCOUNT, in_runs=True, later=True, note="taken off, told positive"
        ),
    ]
    total_fee: Annotated[str | None, SessionColumn(ValueKind.MONEY, in_runs=True)]
    periods: Annotated[str | None, SessionColumn(ValueKind.PERIODS)]
    soc_start_pct: Annotated[float | None, SessionColumn(ValueKind.PERCENT, in_runs=True)]
    soc_stop_pct: Annotated[float | None, SessionColumn(ValueKind.PERCENT, in_runs=True)]
    battery_capacity_wh: Annotated[float | None, SessionColumn(ValueKind.CAPACITY, in_runs=True)]
    bms_energy_wh: Annotated[float | None, SessionColumn(ValueKind.CAPACITY, in_runs=True)]
    stop_reason: Annotated[str | None, SessionColumn(ValueKind.FREE_TEXT)]
    # The parts of the key `signed`. The API says what the checks of the record say instead.
    signed_format: Annotated[str | None, SessionColumn(ValueKind.SIGNED)]
    signed_data: Annotated[str | None, SessionColumn(ValueKind.SIGNED, in_api=False)]
    signed_public_key: Annotated[str | None, SessionColumn(ValueKind.SIGNED, in_api=False)]


SESSION_COLUMNS = columns_of(Session, SessionColumn)

TOLD_COLUMNS = (
    SESSION_COLUMNS[0],
    SessionColumn(ValueKind.NAME, "connector"),
    *SESSION_COLUMNS[1:],
)
"""What a message tells of a session: the connector's name too, which rows have as its number."""
