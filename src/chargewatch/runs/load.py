"""From the database to the arrays of one risk run."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import asyncpg
import numpy as np

from chargewatch.domain.arrays import Floats, Ints
from chargewatch.domain.columns import Form
from chargewatch.domain.mpe import RuleSet
from chargewatch.domain.times import SLOT_S
from chargewatch.risk.run_inputs import (
    Anchors,
    DeclaredChanges,
    FinishedSessions,
    Fleet,
    Intervals,
    References,
    RunInputs,
)
from chargewatch.signals.findings import Names
from chargewatch.signals.grain import steps_of_sessions
from chargewatch.signals.sessions import LONGEST_SESSION_S
from chargewatch.storage.archive import window as archives
from chargewatch.storage.archive.window import Archive
from chargewatch.storage.bulk import Records, seconds_of
from chargewatch.storage.runs import inputs as store

BLOCK_CONNECTOR_DAYS = 200_000
"""Connectors x days whose intervals are read at once: 2 days of a city of 100,000."""

Rows = list[dict[str, Any]]
Place = tuple[str, str]
"""operator_id and station_id."""


@dataclass(frozen=True, kw_only=True)
class Registry:
    """Who is there: rows in the order of their identifiers, and where they stand."""

    connectors: Rows
    meters: Rows  # all, registered or not
    connector_ids: Ints
    meter_ids: Ints
    places: Sequence[Place]
    place_rows: dict[Place, int]
    names: Names

    def connector_rows(self, connector_ids: Ints) -> Ints:
        """Return rows of Fleet from identifiers of the database."""
        return np.searchsorted(self.connector_ids, connector_ids)


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """What one run reads, besides the raw readings that are streamed."""

    inputs: RunInputs  # without intervals and sessions: `read_block` adds them
    clock_limit_s: float  # by the run's rule set
    registry: Registry
    sessions: Records  # of the window, in the order of their end
    meter_ids: Ints  # of RunInputs.references
    last_reading_s: Floats  # of each connector, at or before as_of; NaN: none
    last_meter_s: Floats  # of each reference meter
    valid_until_s: Floats  # of the newest passed verification; NaN: none
    archive: Archive | None  # days that are read from files; None: all come from the database
    is_part: bool = False  # of the connectors only some


def column(rows: Rows, name: str, *, default: float = np.nan) -> Floats:
    """Return a column of numbers; None becomes `default`."""
    return np.array([default if row[name] is None else row[name] for row in rows], float)


@lru_cache(maxsize=20_000)
def day_end_s(day: date, zone: ZoneInfo) -> float:
    """Return the end of a local day, s; of the calendar's last days, the last that it knows."""
    day = min(day, date.max - timedelta(days=2))
    return datetime.combine(day + timedelta(days=1), time(), zone).timestamp()


def _day_ends(rows: Rows, name: str, zone: ZoneInfo) -> Floats:
    """Return the ends of a column's days, s; NaN where there is none."""
    return np.array(
        [np.nan if row[name] is None else day_end_s(row[name], zone) for row in rows], float
    )


async def load_registry(connection: asyncpg.Connection) -> Registry:
    """Return connectors, meters and stations, registered or only heard of."""
    connectors = await store.rows(connection, store.CONNECTORS)
    meters = await store.rows(connection, store.METERS)
    streams = await store.rows(connection, store.STREAMS)
    places = sorted({(r["operator_id"], r["station_id"]) for r in [*connectors, *meters, *streams]})
    return Registry(
        connectors=connectors,
        meters=meters,
        connector_ids=np.array([row["connector_id"] for row in connectors], np.int64),
        meter_ids=np.array([row["meter_id"] for row in meters], np.int64),
        places=places,
        place_rows={place: row for row, place in enumerate(places)},
        names=Names(
            connector=[row["connector"] for row in connectors],
            connector_station=[row["station_id"] for row in connectors],
            connector_operator=[row["operator_id"] for row in connectors],
            station=[place[1] for place in places],
            station_operator=[place[0] for place in places],
            meter=[row["meter"] for row in meters],
            meter_station=[row["station_id"] for row in meters],
            meter_operator=[row["operator_id"] for row in meters],
        ),
    )


def _numbers(texts: Sequence[Any]) -> Ints:
    """Return the number of each text in the order of all texts."""
    known = {text: number for number, text in enumerate(sorted(set(texts)))}
    return np.array([known[text] for text in texts], np.int64)


def make_fleet(registry: Registry, rules: RuleSet) -> Fleet:
    """Return the connectors with their MPE by a rule set."""
    rows = registry.connectors
    is_dc = np.array([row["current"] == "DC" for row in rows], bool)
    places = [(row["operator_id"], row["station_id"]) for row in rows]
    return Fleet(
        connector=registry.names.connector,
        number=registry.connector_ids,
        station=np.array([registry.place_rows[place] for place in places], np.int64),
        operator=_numbers([row["operator_id"] for row in rows]),
        model=_numbers([(bool(row["current"] == "DC"), row["model"] or "") for row in rows]),
        is_dc=is_dc,
        cable_loss_compensated=np.array([bool(row["cable_loss_compensated"]) for row in rows]),
        mpe=np.array([rules.mpe_of(row["accuracy_class"] or "") for row in rows], float),
        rated_power_w=column(rows, "rated_power_w"),
        max_current_a=column(rows, "max_current_a"),
        resolution_wh=column(rows, "resolution_wh"),
        registered=np.array([row["registered"] for row in rows], bool),
    )


async def _references(
    connection: asyncpg.Connection, registry: Registry, zone: ZoneInfo
) -> tuple[References, Ints]:
    """Return the registered reference meters and their identifiers."""
    meters = [row for row in registry.meters if row["registered"]]
    listed: dict[int, list[int]] = {}
    for link in await store.rows(connection, store.METER_MEMBERS):
        row = int(registry.connector_rows(np.array([link["connector_id"]]))[0])
        listed.setdefault(link["meter_id"], []).append(row)
    by_place: dict[Place, list[int]] = {}
    for row, connector in enumerate(registry.connectors):
        place = connector["operator_id"], connector["station_id"]
        by_place.setdefault(place, []).append(row)
    members, starts = [], [0]
    for meter in meters:
        place = meter["operator_id"], meter["station_id"]
        members += listed.get(meter["meter_id"]) or (
            by_place.get(place, []) if meter["scope"] == "station" else []
        )
        starts.append(len(members))
    numbers = np.array([meter["meter_id"] for meter in meters], np.int64)
    references = References(
        meter=[meter["meter"] for meter in meters],
        number=numbers,
        station=np.array(
            [registry.place_rows[m["operator_id"], m["station_id"]] for m in meters], np.int64
        ),
        in_series=np.array([meter["scope"] == "connector" for meter in meters], bool),
        is_dc=np.array([meter["current"] == "DC" for meter in meters], bool),
        standard_uncertainty=column(meters, "relative_uncertainty")
        / column(meters, "coverage_factor", default=2.0),
        resolution_wh=column(meters, "resolution_wh"),
        valid_until_s=np.array(
            [
                np.nan if m["valid_until"] is None else day_end_s(m["valid_until"], zone)
                for m in meters
            ],
            float,
        ),
        member_start=np.array(starts, np.int64),
        members=np.array(members, np.int64),
    )
    return references, numbers


async def _intervals(
    connection: asyncpg.Connection,
    kind: str,
    *,
    archive: Archive | None,
    ids: Ints,
    last_s: Floats,
    first: datetime,
    last: datetime,
    some: bool,
) -> Intervals:
    """Return rollups of slots in [first, last) that depend on readings at or before as_of only.

    The energy of a slot is known from the readings up to the first one at or after its end; a
    slot that ends after the instrument's last reading (last_s, up to as_of; NaN: its readings are
    no longer kept) would know something of what came later. some: `ids` are few of all.
    """
    limit_s = np.fmin(np.where(np.isnan(last_s), np.inf, last_s), last.timestamp())
    parts: dict[str, list[Any]] = {name: [] for name in ("row", "slot", "energy", "u", "quality")}

    def take(chunk: Records) -> None:
        row = np.searchsorted(ids, chunk["instrument"])
        inside = np.minimum(row, max(ids.size - 1, 0))
        slot = chunk["slot_at"].view(np.int64) // (SLOT_S * 1_000_000)
        keep = np.flatnonzero(
            (ids[inside] == chunk["instrument"]) & ((slot + 1) * SLOT_S <= limit_s[inside])
        )
        parts["row"].append(row[keep].astype(np.int32))
        parts["slot"].append(slot[keep].astype(np.int32))
        parts["energy"].append(chunk["energy_wh"][keep])
        parts["u"].append(chunk["u_wh"][keep])
        parts["quality"].append(chunk["quality"][keep])

    if ids.size:
        begin = datetime.fromtimestamp(first.timestamp() // SLOT_S * SLOT_S, UTC)
        await archives.read_intervals(
            connection,
            archive,
            kind,
            first=begin,
            last=last,
            consume=take,
            ids=ids.tolist() if some else None,
        )

    return await asyncio.to_thread(_sorted_intervals, parts)


def _sorted_intervals(parts: dict[str, list[Any]]) -> Intervals:
    """Return columns that came in pieces, by (instrument, slot); empties `parts`.

    Sorting here takes a fraction of the time that the server takes, which would write to disk.
    """

    def joined(name: str, dtype: Any) -> Any:
        pieces = parts.pop(name)
        return np.concatenate(pieces).astype(dtype) if pieces else np.empty(0, dtype)

    row, slot = joined("row", np.int64), joined("slot", np.int64)
    # One key sorts faster than two; 2^32 slots reach far beyond any time.
    order = np.argsort((row << 32) | slot, kind="stable")
    return Intervals(
        instrument=row[order],
        slot=slot[order],
        energy_wh=joined("energy", np.float64)[order],
        u_wh=joined("u", np.float64)[order],
        quality=joined("quality", np.int16)[order],
    )


def as_told(records: Records, arrays: type[Any]) -> dict[str, Floats]:
    """Return the columns of sessions that a class of arrays takes by their own names."""
    numbers = {c.name for c in store.RUN_COLUMNS if c.kind.form != Form.TIME}
    return {f.name: records[f.name].astype(float) for f in fields(arrays) if f.name in numbers}


def make_sessions(registry: Registry, records: Records) -> FinishedSessions:
    """Return the engine's sessions from rows of the database."""
    # The key of the vehicle's name, not a number of this run: the next run goes on with it.
    vehicle = np.where(
        records["vehicle"] != 0, records["vehicle"] & np.int64(2**59 - 1), np.int64(-1)
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        price = np.where(
            records["billed_wh"] > 0, records["total_fee"] * 1000 / records["billed_wh"], np.nan
        )
    ended_s = seconds_of(records["ended_at"])
    # A begin that a clock told before it was set says nothing of the time; the energy stands.
    started_s = np.maximum(seconds_of(records["started_at"]), ended_s - LONGEST_SESSION_S.value)
    return FinishedSessions(
        connector=registry.connector_rows(records["connector_id"]),
        vehicle=vehicle.astype(np.int64),
        started_s=started_s,
        ended_s=ended_s,
        energy_wh=records["stop_wh"] - records["start_wh"],
        interrupted=records["interrupted"].copy(),
        energy_price=price,
        **as_told(records, FinishedSessions),
    )


def _anchors(verifications: Rows, registry: Registry, zone: ZoneInfo) -> Anchors:
    stated = [
        row
        for row in verifications
        if row["relative_error"] is not None and row["expanded_uncertainty"]
    ]
    ids = np.array([row["connector_id"] for row in stated], np.int64)
    return Anchors(
        connector=registry.connector_rows(ids),
        verified_s=np.array([day_end_s(row["verified_on"], zone) for row in stated], float),
        valid_until_s=_day_ends(stated, "valid_until", zone),
        relative_error=column(stated, "relative_error"),
        standard_uncertainty=column(stated, "expanded_uncertainty")
        / column(stated, "coverage_factor", default=2.0),
    )


async def _declared(
    connection: asyncpg.Connection, registry: Registry, *, as_of: datetime
) -> DeclaredChanges:
    """Return what was declared that begins a new error or may have, by connector and time."""
    records = await store.declared_errors(connection, as_of=as_of)
    rows, at_s = registry.connector_rows(records["connector_id"]), seconds_of(records["at"])
    order = np.lexsort((records["replaced"], at_s, rows))
    return DeclaredChanges(
        connector=rows[order], at_s=at_s[order], replaced=records["replaced"][order].copy()
    )


def _valid_until(
    verifications: Rows, registry: Registry, zone: ZoneInfo, *, years: int | None
) -> Floats:
    """Return the end of validity of each connector's newest verification; a failed one ends it.

    One that decided nothing leaves validity as it was.
    """
    until = np.full(registry.connector_ids.size, np.nan)
    ids = np.array([row["connector_id"] for row in verifications], np.int64)
    # In the order of their days: the newest one stays.
    for row, at in zip(verifications, registry.connector_rows(ids).tolist(), strict=True):
        if row["result"] == "fail":
            until[at] = day_end_s(row["verified_on"], zone)
        elif row["result"] != "pass":
            continue
        elif row["valid_until"] is not None:
            until[at] = day_end_s(row["valid_until"], zone)
        else:
            valid = timedelta(days=round(365.25 * (years or 100)))
            end = min(row["verified_on"], date.max - valid) + valid
            until[at] = day_end_s(end, zone)
    return until


def _no_intervals() -> Intervals:
    whole, real = np.empty(0, np.int64), np.empty(0)
    return Intervals(
        instrument=whole, slot=whole, energy_wh=real, u_wh=real, quality=np.empty(0, np.int16)
    )


async def _last_s(
    connection: asyncpg.Connection, kind: str, *, ids: Ints, first: datetime, as_of: datetime
) -> Floats:
    """Return the time of the last reading of each instrument; NaN: none in the window."""
    last = await store.last_readings(connection, kind, first=first, last=as_of)
    known = np.isin(last["connector_id"], ids)
    last_s = np.full(ids.size, np.nan)
    last_s[np.searchsorted(ids, last["connector_id"][known])] = seconds_of(last["at"][known])
    return last_s


async def load(
    connection: asyncpg.Connection,
    *,
    first: datetime,
    as_of: datetime,
    rules: RuleSet,
    zone: ZoneInfo,
    archive: Archive | None = None,
) -> Loaded:
    """Return what a run with a window from `first` to `as_of` reads, but for the intervals."""
    registry = await load_registry(connection)
    references, meter_ids = await _references(connection, registry, zone)
    day = as_of.astimezone(zone).date()
    verifications = await store.rows(connection, store.VERIFICATIONS, as_of=day)
    records = await archives.sessions(connection, archive, first=first, last=as_of)
    fleet = make_fleet(registry, rules)
    # A step that nobody registered bears on energies as one that somebody did.
    seen_wh = steps_of_sessions(
        registry.connector_rows(records["connector_id"]),
        records["start_wh"],
        records["stop_wh"],
        fleet.resolution_wh,
    )
    inputs = RunInputs(
        as_of_s=as_of.timestamp(),
        from_s=first.timestamp(),
        fleet=replace(fleet, resolution_wh=seen_wh),
        references=references,
        connector_intervals=_no_intervals(),
        meter_intervals=_no_intervals(),
        sessions=make_sessions(registry, records[:0]),
        anchors=_anchors(verifications, registry, zone),
        declared=await _declared(connection, registry, as_of=as_of),
    )
    years = rules.verification_period_years
    ids = registry.connector_ids
    return Loaded(
        inputs=inputs,
        clock_limit_s=rules.clock_limit_s,
        registry=registry,
        sessions=records,
        meter_ids=meter_ids,
        last_reading_s=await _last_s(connection, "connector", ids=ids, first=first, as_of=as_of),
        last_meter_s=await _last_s(connection, "meter", ids=meter_ids, first=first, as_of=as_of),
        valid_until_s=_valid_until(verifications, registry, zone, years=years),
        archive=archive,
    )


async def read_block(
    connection: asyncpg.Connection, loaded: Loaded, *, first: datetime, last: datetime
) -> RunInputs:
    """Return the engine's inputs of [first, last): intervals, and sessions that ended in it."""
    ended = seconds_of(loaded.sessions["ended_at"])
    inside = (ended > first.timestamp()) & (ended <= last.timestamp())
    return replace(
        loaded.inputs,
        as_of_s=last.timestamp(),
        from_s=first.timestamp(),
        connector_intervals=await _intervals(
            connection,
            "connector",
            archive=loaded.archive,
            ids=loaded.registry.connector_ids,
            last_s=loaded.last_reading_s,
            first=first,
            last=last,
            some=loaded.is_part,
        ),
        meter_intervals=await _intervals(
            connection,
            "meter",
            archive=loaded.archive,
            ids=loaded.meter_ids,
            last_s=loaded.last_meter_s,
            first=first,
            last=last,
            some=loaded.is_part,
        ),
        sessions=make_sessions(loaded.registry, loaded.sessions[inside]),
    )


async def read_some(
    connection: asyncpg.Connection,
    loaded: Loaded,
    *,
    meters: Ints,
    connectors: Ints,
    from_s: float,
) -> RunInputs:
    """Return the intervals of some meters and connectors (ascending rows) up to as_of.

    They are numbered as in `loaded.inputs`.
    """
    inputs = loaded.inputs
    first = datetime.fromtimestamp(max(from_s, inputs.from_s), UTC)
    last = datetime.fromtimestamp(inputs.as_of_s, UTC)
    found = {}
    for kind, rows, ids, last_s in (
        ("connector", connectors, loaded.registry.connector_ids, loaded.last_reading_s),
        ("meter", meters, loaded.meter_ids, loaded.last_meter_s),
    ):
        intervals = await _intervals(
            connection,
            kind,
            archive=loaded.archive,
            ids=ids[rows],
            last_s=last_s[rows],
            first=first,
            last=last,
            some=True,
        )
        found[kind] = replace(intervals, instrument=rows[intervals.instrument])
    return replace(
        inputs,
        from_s=first.timestamp(),
        connector_intervals=found["connector"],
        meter_intervals=found["meter"],
    )


def blocks(first: datetime, last: datetime, *, connectors: int) -> list[tuple[datetime, datetime]]:
    """Return parts of [first, last) that fit in memory, cut at midnight UTC."""
    days = max(1, BLOCK_CONNECTOR_DAYS // max(connectors, 1))
    edges = [first]
    midnight = first.replace(hour=0, minute=0, second=0, microsecond=0)
    while (midnight := midnight + timedelta(days=days)) < last:
        edges.append(midnight)
    return list(pairwise([*edges, last])) if first < last else []
