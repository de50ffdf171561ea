"""The index of piles: all that the list is narrowed and sorted by, a column of the city a row.

Position k of every column is connector k in the order of connector_id. An order is an array of
positions, so a page is a filter over arrays and one slice of the result, whatever it asks for.
Derived from other tables and rebuilt as a whole in the transaction that changes them: see
docs/decisions/storage-pile-index.md.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, TypeVar, cast

import asyncpg
import numpy as np
import orjson
from numpy.typing import NDArray
from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.domain.arrays import Bools, Floats
from chargewatch.domain.verdict import TIER_ORDER
from chargewatch.storage import sql
from chargewatch.storage.bulk import Records, copy_arrays
from chargewatch.storage.locks import LOCK_IN_TRANSACTION, AdvisoryLock
from chargewatch.storage.newest_run import NEWEST_RUN

Positions = NDArray[np.int32]
Word = TypeVar("Word")
Claim = tuple[str, str, str]
"""A connector as an operator has it at a station: connector, operator_id, station_id."""


FORM = 3
"""Of what is stored; an index of another one is not read, but built on the spot."""

TIERS = tuple(tier.value for tier in TIER_ORDER)
"""Most urgent first; a tier is stored as its place here."""
NOT_IN_RUN = -1

NOT_REGISTERED = -(2**31)
NEVER_VERIFIED = NOT_REGISTERED + 1

SORTS = (
    "priority",
    "money",
    "overcharge",
    "undercharge",
    "error",
    "probability",
    "connector",
)
"""Orders of the list; most urgent, most money, most paid too much and too little in 30 days,
largest error, most probable, by name."""

SIDES = ("overcharge", "undercharge")
_TYPES = {"tier": "<i1", "money": "<f8"}
_POSITION = "<i4"
_COUNTS = ("operator", "station", "district", "name_length")
"""Columns of small numbers: stored in the narrowest type that holds them."""

_PREVIOUS_RUN = sql.statement(
    "pile index: previous run",
    """
SELECT max(run_id) FROM risk_run WHERE state = 'finished' AND run_id < :run_id
  AND as_of = (SELECT max(as_of) FROM risk_run WHERE state = 'finished' AND as_of < :as_of)
""",
)
_CONNECTORS = sql.statement(
    "pile index: connectors",
    """
SELECT connector_id, connector, operator_id, station_id, registered FROM connector
ORDER BY connector, operator_id, station_id
""",
)
_STATIONS = sql.statement(
    "pile index: stations",
    "SELECT operator_id, station_id, name, coalesce(district, '') FROM station",
)
_VERIFIED = sql.statement(
    "pile index: verified",
    "SELECT connector_id, until FROM instrument_validity WHERE until IS NOT NULL",
)
_ASSESSMENTS = sql.statement(
    "pile index: assessments",
    """
SELECT connector_id, (array_position(CAST(:tiers AS text[]), tier) - 1)::smallint, priority_money,
  relative_error, p_nonconforming, overcharge_error, overcharge_billing, undercharge_error,
  undercharge_billing FROM assessment WHERE run_id = :run_id
""",
)
_RED = sql.statement(
    "pile index: red",
    "SELECT connector_id FROM assessment WHERE run_id = :run_id AND tier = 'red'",
)
_SIGNALS = sql.statement(
    "pile index: signals",
    """
SELECT DISTINCT code, connector, operator_id, station_id FROM signal
WHERE closed_run IS NULL AND connector IS NOT NULL
""",
)
_READ = sql.statement(
    "pile index: read",
    "SELECT name, content FROM pile_index WHERE name = ANY(CAST(:names AS text[]))",
)
_EMPTY = sql.statement("pile index: empty", "DELETE FROM pile_index")

_VERIFIED_ROW = np.dtype([("connector_id", "i4"), ("valid_until", "M8[D]")])
_ASSESSMENT_ROW = np.dtype(
    [
        ("connector_id", "i4"),
        ("tier", "i2"),
        ("money", "f8"),
        ("error", "f8"),
        ("probability", "f8"),
        *((f"{side} by {cause}", "f8") for side in SIDES for cause in ("error", "billing")),
    ]
)


@dataclass(frozen=True)
class PileIndex:
    """Some columns of the index; asking for one that was not read is a KeyError."""

    columns: Mapping[str, bytes]
    run_id: int | None
    operators: Sequence[str]
    districts: Sequence[str]
    newly_red: int  # so many of `newest_red`, its first ones, were not red in the run before
    types: Mapping[str, str]
    form: int = 1

    @classmethod
    def of(cls, columns: Mapping[str, bytes]) -> PileIndex:
        """Return the index that columns hold."""
        return cls(columns, **orjson.loads(columns["head"]))

    def array(self, name: str) -> NDArray[Any]:
        """Return a column of numbers."""
        return np.frombuffer(self.columns[name], dtype=self.types[name])

    def flagged(self, code: str) -> Positions:
        """Return the connectors with an open signal of a code."""
        return np.frombuffer(self.columns.get(f"signal {code}", b""), dtype=_POSITION)

    def of_operator(self, operator_id: str) -> Bools:
        """Return which connectors are an operator's."""
        return _equal(self.array("operator"), self.operators, operator_id)

    def in_district(self, district: str) -> Bools:
        """Return which connectors stand in a district."""
        return _equal(self.array("district"), self.districts, district)

    @cached_property
    def _stations(self) -> Mapping[str, Sequence[str]]:
        return cast("Mapping[str, Sequence[str]]", orjson.loads(self.columns["stations"]))

    def at_station(self, station_id: str) -> Bools:
        """Return which connectors stand at a station, whoever claims to have it."""
        names = self._stations["station_id"]
        wanted = [code for code, name in enumerate(names) if name == station_id]
        return np.isin(self.array("station"), wanted)

    def found(self, words: str) -> Bools:
        """Return which connectors' names begin with words, or whose station's name holds them."""
        names = self.columns["names"]
        ends = np.cumsum(self.array("name_length"), dtype=np.int64)

        def beginning(place: int) -> bytes:
            start = int(ends[place - 1]) if place else 0
            return names[start : int(ends[place])][: len(wanted)]

        wanted = words.upper().encode()
        places = range(len(ends))
        first = bisect_left(places, wanted, key=beginning)
        last = bisect_right(places, wanted, lo=first, key=beginning)
        part = words.lower()
        holds = np.array([part in name for name in self._stations["name"]], dtype=bool)
        found = holds[self.array("station")] if holds.size else np.zeros(0, dtype=bool)
        found[self.array("name_order")[first:last]] = True
        return found


def _equal(codes: NDArray[Any], known: Sequence[str], word: str) -> Bools:
    if word not in known:
        return np.zeros(len(codes), dtype=bool)
    return cast("Bools", codes == known.index(word))


def _stored(name: str, values: NDArray[Any]) -> NDArray[Any]:
    """Return a column in the type it is stored in."""
    if name in _COUNTS:
        return values.astype(np.min_scalar_type(values.max(initial=0)).newbyteorder("<"))
    return values.astype(_TYPES.get(name, _POSITION))


@dataclass
class _Words(Generic[Word]):
    """Numbers for words, in the order of their first appearance."""

    number_of: dict[Word, int] = field(default_factory=dict)

    def code(self, words: Iterable[Word]) -> Positions:
        numbers = self.number_of
        return np.fromiter(
            (numbers.setdefault(word, len(numbers)) for word in words), dtype=_POSITION
        )


def _descending(column: Floats, *, listed: Positions) -> Floats:
    """Return keys that sort the largest first and the unknown last."""
    values = column[listed]
    return np.where(np.isnan(values), np.inf, -values)


def _placed(rows: Records, connector_id: Positions, name: str, *, unknown: float) -> NDArray[Any]:
    """Return a field of rows as a column, `unknown` where no row is."""
    column = np.full(len(connector_id), unknown, dtype=rows.dtype[name])
    column[np.searchsorted(connector_id, rows["connector_id"])] = rows[name]
    return column


@dataclass(frozen=True)
class _Registry:
    """What the registry says of the connectors."""

    columns: Mapping[str, NDArray[Any]]
    texts: Mapping[str, bytes]
    operators: Sequence[str]
    districts: Sequence[str]
    by_name: Positions
    places: Mapping[Claim, int]


def _registry(
    connectors: Sequence[asyncpg.Record], stations: Sequence[asyncpg.Record], verified: Records
) -> _Registry:
    """Return the columns of the registry; the connectors come by name."""
    ids = np.array([row[0] for row in connectors], dtype=_POSITION)
    in_id_order = np.argsort(ids)
    connector_id = ids[in_id_order]
    by_name = np.empty(len(ids), dtype=_POSITION)
    by_name[in_id_order] = np.arange(len(ids), dtype=_POSITION)

    operators, districts = _Words[str](), _Words[str]()
    # A station's name and district are its operator's: another's claim on its id learns neither.
    stations_of = _Words[tuple[str, str]]()
    station = stations_of.code((row[2], row[3]) for row in connectors)[in_id_order]
    known = {(row[0], row[1]): (row[2], row[3]) for row in stations}
    named = [known.get(place, ("", "")) for place in stations_of.number_of]
    district = districts.code(district for _, district in named)

    upper = [row[1].upper().encode() for row in connectors]
    name_order = sorted(range(len(upper)), key=upper.__getitem__)
    registered = np.array([row[4] for row in connectors], dtype=bool)[in_id_order]
    days = verified.astype([("connector_id", "i4"), ("valid_until", "i8")])
    # Days since 1970.
    verified_until = _placed(days, connector_id, "valid_until", unknown=NEVER_VERIFIED)

    places = {
        (row[1], row[2], row[3]): place
        for row, place in zip(connectors, by_name.tolist(), strict=True)
    }
    names = [name.lower() for name, _ in named]
    station_ids = [station_id for _, station_id in stations_of.number_of]
    return _Registry(
        columns={
            "connector_id": connector_id,
            "operator": operators.code(row[2] for row in connectors)[in_id_order],
            "station": station,
            "district": district[station],
            "verified_until": np.where(registered, verified_until, NOT_REGISTERED),
            "name_order": by_name[name_order],
            "name_length": np.array([len(upper[k]) for k in name_order], dtype=np.int64),
        },
        texts={
            "stations": orjson.dumps({"station_id": station_ids, "name": names}),
            "names": b"".join(upper[k] for k in name_order),
        },
        operators=list(operators.number_of),
        districts=list(districts.number_of),
        by_name=by_name,
        places=places,
    )


async def build(connection: asyncpg.Connection, *, run_id: int | None = None) -> dict[str, bytes]:
    """Return all columns of a finished run, by default the newest; without any, of no run."""
    run = await sql.row(connection, NEWEST_RUN, run_id=run_id)
    # Connectors last: whatever another row refers to by then is among them.
    assessed = await copy_arrays(
        connection,
        _ASSESSMENTS,
        _ASSESSMENT_ROW,
        values={"run_id": None if run is None else run["run_id"], "tiers": list(TIERS)},
    )
    verified = await copy_arrays(connection, _VERIFIED, _VERIFIED_ROW)
    stations = await sql.rows(connection, _STATIONS, timeout_s=600)
    connectors = await sql.rows(connection, _CONNECTORS, timeout_s=600)
    registry = _registry(connectors, stations, verified)
    by_name = registry.by_name
    newly_red = 0
    columns: Mapping[str, NDArray[Any]] = {
        **dict.fromkeys((f"by_{sort}" for sort in SORTS), by_name),
        "tier": np.full(len(by_name), NOT_IN_RUN),
        "money": np.full(len(by_name), np.nan),
        "newest_red": np.empty(0),
    }
    if run is not None:
        ids = registry.columns["connector_id"]
        columns, newly_red = await _run_columns(
            connection, run, assessed, connector_id=ids, by_name=by_name
        )
    numbers = {
        name: _stored(name, values) for name, values in {**registry.columns, **columns}.items()
    }
    head = {
        "form": FORM,
        "run_id": None if run is None else run["run_id"],
        "operators": registry.operators,
        "districts": registry.districts,
        "newly_red": newly_red,
        "types": {name: values.dtype.str for name, values in numbers.items()},
    }
    return {
        "head": orjson.dumps(head),
        **registry.texts,
        **{name: values.tobytes() for name, values in numbers.items()},
        **await _signal_columns(connection, registry.places),
    }


async def _run_columns(
    connection: asyncpg.Connection,
    run: asyncpg.Record,
    rows: Records,
    *,
    connector_id: Positions,
    by_name: Positions,
) -> tuple[dict[str, NDArray[Any]], int]:
    """Return what a run says of the connectors, and how many are red that were not before."""
    tier = _placed(rows, connector_id, "tier", unknown=NOT_IN_RUN)
    money, error, probability = (
        _placed(rows, connector_id, name, unknown=np.nan)
        for name in ("money", "error", "probability")
    )
    listed = np.flatnonzero(tier != NOT_IN_RUN).astype(_POSITION)
    most = _descending(money, listed=listed)

    def by_side(side: str) -> Positions:
        """Of both causes as much as is known; nothing of what is not."""
        error, billing = (
            _placed(rows, connector_id, f"{side} by {cause}", unknown=np.nan)
            for cause in ("error", "billing")
        )
        known = np.where(np.isnan(error), billing, error + np.nan_to_num(billing))
        return listed[np.argsort(_descending(known, listed=listed), kind="stable")]

    # A sort is stable: equal ones stay in the order of connector_id.
    columns = {
        "tier": tier,
        "money": money,
        "by_priority": listed[np.lexsort((most, tier[listed]))],
        "by_money": listed[np.argsort(most, kind="stable")],
        "by_error": listed[np.argsort(_descending(np.abs(error), listed=listed), kind="stable")],
        "by_probability": listed[
            np.argsort(_descending(probability, listed=listed), kind="stable")
        ],
        "by_connector": by_name[tier[by_name] != NOT_IN_RUN],
        **{f"by_{side}": by_side(side) for side in SIDES},
    }
    previous = await sql.value(connection, _PREVIOUS_RUN, run_id=run["run_id"], as_of=run["as_of"])
    before = await sql.rows(connection, _RED, run_id=previous, timeout_s=600)
    was_red = np.isin(connector_id, [row[0] for row in before])
    red = by_name[tier[by_name] == TIERS.index("red")]
    # Red now and not in the run before comes first: that is news.
    columns["newest_red"] = red[np.lexsort((_descending(money, listed=red), was_red[red]))]
    return columns, int(np.count_nonzero(~was_red[red]))


async def _signal_columns(
    connection: asyncpg.Connection, places: Mapping[Claim, int]
) -> dict[str, bytes]:
    by_code: dict[str, list[int]] = {}
    for code, *claim in await sql.rows(connection, _SIGNALS, timeout_s=600):
        place = places.get((claim[0], claim[1], claim[2]))
        if place is not None:
            by_code.setdefault(code, []).append(place)
    return {
        f"signal {code}": np.array(sorted(found), dtype=_POSITION).tobytes()
        for code, found in by_code.items()
    }


async def rebuild(connection: asyncpg.Connection) -> None:
    """Store the index anew, of the newest finished run; pages see it from the commit on.

    For whoever has changed the registry, a run or signals, at the end of that transaction.
    """
    # Two at once: the later one must see what the earlier one has changed.
    await sql.run(connection, LOCK_IN_TRANSACTION, key=AdvisoryLock.PILE_INDEX)
    columns = await build(connection)
    await sql.run(connection, _EMPTY)
    await connection.copy_records_to_table(
        "pile_index", records=sorted(columns.items()), columns=("name", "content"), timeout=600
    )


async def rebuild_if_missing(connection: asyncpg.Connection) -> None:
    """Store the index where there is none of today's form: a migration adds its table empty."""
    head = await sql.row(connection, _READ, names=["head"])
    if head is None or orjson.loads(head["content"]).get("form") != FORM:
        await rebuild(connection)


async def driver_of(connection: AsyncConnection) -> asyncpg.Connection:
    """Return asyncpg's connection below one of SQLAlchemy's."""
    return (await connection.get_raw_connection()).driver_connection


async def read_index(
    connection: AsyncConnection, *names: str, run_id: int | None = None
) -> PileIndex:
    """Return some columns of the index of a run, by default the newest.

    Built on the spot where none is stored of that run: slow, and as right.
    """
    found = await sql.rows(connection, _READ, names=["head", *names])
    columns = {row["name"]: row["content"] for row in found}
    if columns:
        index = PileIndex.of(columns)
        if index.form == FORM and run_id in (None, index.run_id):
            return index
    return PileIndex.of(await build(await driver_of(connection), run_id=run_id))
