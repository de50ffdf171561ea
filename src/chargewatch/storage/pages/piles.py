"""The triage list of piles: one page of the newest run, narrowed and sorted by the index."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.domain.arrays import Bools
from chargewatch.domain.assessment import ASSESSMENT_COLUMNS
from chargewatch.storage import sql
from chargewatch.storage.database import Database
from chargewatch.storage.pages.city import OPEN_SIGNALS, PAGE_ROWS, Scope
from chargewatch.storage.pages.watched import Arguments, SampleValues, watched
from chargewatch.storage.pile_index import SORTS, TIERS, PileIndex, Positions, read_index

STREAM_ROWS = 1_000

ROWS = sql.statement(
    "piles: rows",
    "SELECT c.connector, c.pile, c.station_id, s.name AS station_name, s.district, c.operator_id, "  # noqa: S608
    "o.name AS operator_name, c.current, c.accuracy_class, c.model, c.registered, "
    f"{', '.join(f'a.{column.name}' for column in ASSESSMENT_COLUMNS if column.in_list)}, "
    "l.at AS latest_at, "
    f"{OPEN_SIGNALS} "
    "FROM unnest(CAST(:connector_ids AS integer[])) WITH ORDINALITY AS page(connector_id, place) "
    "JOIN connector c ON c.connector_id = page.connector_id "
    "LEFT JOIN assessment a ON a.connector_id = c.connector_id AND a.run_id = :run_id "
    "LEFT JOIN station s ON s.station_id = c.station_id AND s.operator_id = c.operator_id "
    "LEFT JOIN operator o ON o.operator_id = c.operator_id "
    "LEFT JOIN latest_reading l ON l.connector_id = c.connector_id ORDER BY page.place",
)


@dataclass(frozen=True, kw_only=True)
class PileFilter:
    """What the list is narrowed to; an empty field narrows nothing."""

    tiers: tuple[str, ...] = ()
    operator_id: str = ""
    station_id: str = ""
    district: str = ""
    signal: str = ""
    text: str = ""
    sort: str = "priority"


@dataclass(frozen=True)
class PilePage:
    """One page of the list, and how long the whole list is."""

    rows: Sequence[RowMapping]
    total: int


def _columns(wanted: PileFilter, *, scope: Scope) -> list[str]:
    """Return the columns of the index that a list needs."""
    names = ["connector_id", f"by_{wanted.sort}"]
    if wanted.tiers:
        names.append("tier")
    if wanted.operator_id or scope is not None:
        names.append("operator")
    if wanted.district:
        names.append("district")
    if wanted.station_id or wanted.text:
        names += ["station", "stations"]
    if wanted.signal:
        names.append(f"signal {wanted.signal}")
    if wanted.text:
        names += ["names", "name_length", "name_order"]
    return names


def _kept(index: PileIndex, wanted: PileFilter, *, scope: Scope) -> Bools | None:
    """Return which connectors a filter leaves; None: all."""
    masks: list[Bools] = []
    if scope is not None:
        masks.append(index.of_operator(scope))
    if wanted.tiers:
        ranks = [TIERS.index(tier) for tier in wanted.tiers]
        masks.append(np.isin(index.array("tier"), ranks))
    if wanted.operator_id:
        masks.append(index.of_operator(wanted.operator_id))
    if wanted.station_id:
        masks.append(index.at_station(wanted.station_id))
    if wanted.district:
        masks.append(index.in_district(wanted.district))
    if wanted.signal:
        flagged = np.zeros(len(index.array("connector_id")), dtype=bool)
        flagged[index.flagged(wanted.signal)] = True
        masks.append(flagged)
    if wanted.text:
        masks.append(index.found(wanted.text))
    return np.logical_and.reduce(masks) if masks else None


async def _keys(
    connection: AsyncConnection, wanted: PileFilter, *, run_id: int | None, scope: Scope
) -> Positions:
    """Return the connector_id of the whole list, in order."""
    index = await read_index(connection, *_columns(wanted, scope=scope), run_id=run_id)
    order: Positions = index.array(f"by_{wanted.sort}")
    kept = _kept(index, wanted, scope=scope)
    if kept is not None:
        order = order[kept[order]]
    keys: Positions = index.array("connector_id")[order]
    return keys


async def _rows(
    connection: AsyncConnection, keys: Positions, *, run_id: int | None
) -> Sequence[RowMapping]:
    return await sql.rows(
        connection, ROWS, connector_ids=keys.tolist(), run_id=-1 if run_id is None else run_id
    )


def _first_page(wanted: Callable[[SampleValues], PileFilter] = lambda _: PileFilter()) -> Arguments:
    def arguments(s: SampleValues) -> dict[str, Any]:
        page = {"run_id": s.run_id, "scope": None, "limit": PAGE_ROWS, "offset": 0}
        return {"wanted": wanted(s), **page}

    return arguments


def _by(sort: str) -> Arguments:
    return _first_page(lambda _: PileFilter(sort=sort))


def _all_filters(s: SampleValues) -> PileFilter:
    return PileFilter(
        tiers=("grey", "green"),
        operator_id=s.operator_id,
        district=s.district,
        signal="fee_mismatch",
        text=s.connector[:3],
        sort="error",
    )


@watched(
    {
        **{f"piles by {sort}": _by(sort) for sort in SORTS},
        "piles: last page": lambda s: {**_first_page()(s), "offset": 99_000},
        "piles: scope": lambda s: {**_first_page()(s), "scope": s.operator_id},
        "piles: tier": _first_page(lambda _: PileFilter(tiers=("red", "orange"))),
        "piles: operator": _first_page(lambda s: PileFilter(operator_id=s.operator_id)),
        "piles: district": _first_page(lambda s: PileFilter(district=s.district)),
        "piles: signal": _first_page(lambda _: PileFilter(signal="fee_mismatch")),
        "piles: text": _first_page(lambda s: PileFilter(text=s.connector)),
        "piles: text that many have": _first_page(lambda s: PileFilter(text=s.connector[:3])),
        "piles: station": _first_page(lambda s: PileFilter(station_id=s.station_id)),
        "piles: operator, tier by money": _first_page(
            lambda s: PileFilter(operator_id=s.operator_id, tiers=("green",), sort="money")
        ),
        "piles: district, signal": _first_page(
            lambda s: PileFilter(district=s.district, signal="fee_mismatch")
        ),
        "piles: all filters": lambda s: {**_first_page(_all_filters)(s), "scope": s.operator_id},
    }
)
async def piles(
    connection: AsyncConnection,
    wanted: PileFilter,
    *,
    run_id: int | None,
    scope: Scope,
    limit: int,
    offset: int,
) -> PilePage:
    """Return one page of the list."""
    keys = await _keys(connection, wanted, run_id=run_id, scope=scope)
    return PilePage(
        await _rows(connection, keys[offset : offset + limit], run_id=run_id), len(keys)
    )


async def stream_piles(
    database: Database, wanted: PileFilter, *, run_id: int | None, scope: Scope
) -> AsyncIterator[Sequence[RowMapping]]:
    """Yield the whole list of one run in pieces of 1,000 rows, for exports.

    Every piece is read by its keys on a connection of its own: whoever takes long over a piece
    holds none meanwhile.
    """
    async with database.connect() as connection:
        keys = await _keys(connection, wanted, run_id=run_id, scope=scope)
    for first in range(0, len(keys), STREAM_ROWS):
        async with database.connect() as connection:
            rows = await _rows(connection, keys[first : first + STREAM_ROWS], run_id=run_id)
        yield rows
