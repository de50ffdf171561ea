"""The triage list of piles: one page of a run's assessments in an indexed order."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Integer,
    RowMapping,
    Select,
    and_,
    any_,
    bindparam,
    func,
    literal_column,
    or_,
    select,
    union,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.storage.queries import Scope
from chargewatch.storage.tables import (
    assessment,
    connector,
    latest_reading,
    operator,
    signal,
    station,
)

COUNT_LIMIT = 10_000
"""A filtered list is counted up to here; beyond it the page says "more than"."""

CANDIDATE_LIMIT = 2_000
"""A filter that leaves so many connectors or fewer is answered by their keys."""

# The very expressions of the indexes in storage.tables.runs: otherwise every page is a sort.
_TIER_RANK: ColumnElement[Any] = literal_column(
    "(CASE assessment.tier WHEN 'red' THEN 0 WHEN 'orange' THEN 1 WHEN 'yellow' THEN 2 "
    "WHEN 'grey' THEN 3 ELSE 4 END)"
)
_MONEY: ColumnElement[Any] = literal_column(
    "(NULLIF(assessment.priority_money, 'NaN'::double precision))"
)
_ERROR: ColumnElement[Any] = literal_column(
    "(abs(NULLIF(assessment.relative_error, 'NaN'::double precision)))"
)
_PROBABILITY: ColumnElement[Any] = literal_column(
    "(NULLIF(assessment.p_nonconforming, 'NaN'::double precision))"
)

ORDERS: dict[str, tuple[ColumnElement[Any], ...]] = {
    "priority": (_TIER_RANK, _MONEY.desc().nulls_last(), assessment.c.connector_id),
    "money": (_MONEY.desc().nulls_last(), assessment.c.connector_id),
    "error": (_ERROR.desc().nulls_last(), assessment.c.connector_id),
    "probability": (_PROBABILITY.desc().nulls_last(), assessment.c.connector_id),
    "connector": (connector.c.connector, connector.c.operator_id, connector.c.station_id),
}
"""Sort names of the list; most urgent, most money, largest error, most probable, by name."""


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

    @property
    def only_tiers(self) -> bool:
        """Whether nothing but tiers is narrowed, so that the run's summary has the count."""
        return not (
            self.operator_id or self.station_id or self.district or self.signal or self.text
        )


def _starts_with(column: ColumnElement[Any], words: str) -> ColumnElement[bool]:
    escaped = words.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return func.upper(column).like(escaped.upper() + "%", escape="\\")


def _contains(column: ColumnElement[Any], words: str) -> ColumnElement[bool]:
    escaped = words.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return column.ilike(f"%{escaped}%", escape="\\")


def _text_matches(words: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    """Return the two ways of a search: a connector's beginning, a part of its station's name."""
    named = select(station.c.station_id).where(_contains(station.c.name, words))
    return _starts_with(connector.c.connector, words), connector.c.station_id.in_(named)


def _narrow(wanted: PileFilter, *, scope: Scope) -> list[ColumnElement[bool]]:
    clauses: list[ColumnElement[bool]] = []
    if scope is not None:
        clauses.append(connector.c.operator_id == scope)
    if wanted.operator_id:
        clauses.append(connector.c.operator_id == wanted.operator_id)
    if wanted.station_id:
        clauses.append(connector.c.station_id == wanted.station_id)
    if wanted.district:
        here = select(station.c.station_id).where(station.c.district == wanted.district)
        clauses.append(connector.c.station_id.in_(here))
    if wanted.signal:
        is_open = signal.c.closed_run.is_(None)
        flagged = select(signal.c.connector).where(is_open, signal.c.code == wanted.signal)
        clauses.append(connector.c.connector.in_(flagged))
    if wanted.text:
        clauses.append(or_(*_text_matches(wanted.text)))
    return clauses


def _page_keys(
    wanted: PileFilter,
    run_id: int | None,
    *,
    scope: Scope,
    candidates: Sequence[int] | None = None,
) -> Select[Any]:
    """Return the keys of the list in order; joins the connectors only when they are asked about."""
    clauses = _narrow(wanted, scope=scope)
    if run_id is None:
        return select(connector.c.connector_id).where(*clauses).order_by(*ORDERS["connector"])
    keys = select(assessment.c.connector_id).where(assessment.c.run_id == run_id)
    if wanted.tiers:
        keys = keys.where(assessment.c.tier.in_(wanted.tiers))
    if candidates is not None:
        given = bindparam("candidates", list(candidates), type_=ARRAY(Integer))
        keys = keys.where(assessment.c.connector_id == any_(given))
        clauses = []
    if clauses or wanted.sort == "connector":
        same = connector.c.connector_id == assessment.c.connector_id
        keys = keys.join(connector, same).where(*clauses)
    return keys.order_by(*ORDERS[wanted.sort])


async def _candidates(
    connection: AsyncConnection, wanted: PileFilter, *, scope: Scope
) -> list[int] | None:
    """Return the connectors of a narrow filter; None when it is empty or wide.

    A wide filter is answered by walking the list in order, for its rows turn up at once; a narrow
    one by its connectors' keys, for walking would read the whole city.
    """
    clauses = _narrow(wanted, scope=scope)
    if not clauses:
        return None
    statement = select(connector.c.connector_id).where(*clauses).limit(CANDIDATE_LIMIT + 1)
    if wanted.text:
        # Each half has its own index; an OR of them has none.
        rest = PileFilter(**{**vars(wanted), "text": ""})
        halves = [
            select(connector.c.connector_id)
            .where(half, *_narrow(rest, scope=scope))
            .limit(CANDIDATE_LIMIT + 1)
            for half in _text_matches(wanted.text)
        ]
        # A short name of a station finds few, the beginning of a number may find everything.
        statement = select(union(*(half.subquery().select() for half in halves)).subquery())
    found = list((await connection.execute(statement)).scalars())
    return found if len(found) <= CANDIDATE_LIMIT else None


def _rows(keys: Select[Any], wanted: PileFilter, run_id: int | None) -> Select[Any]:
    page = keys.subquery("page")
    order = ORDERS["connector" if run_id is None else wanted.sort]
    open_codes = (
        select(func.array_agg(signal.c.code.distinct()))
        .where(signal.c.connector == connector.c.connector, signal.c.closed_run.is_(None))
        .correlate(connector)
        .scalar_subquery()
        .label("open_signals")
    )
    this_run = and_(
        assessment.c.connector_id == page.c.connector_id,
        assessment.c.run_id == (-1 if run_id is None else run_id),
    )
    return (
        select(
            connector.c.connector,
            connector.c.pile,
            connector.c.station_id,
            station.c.name.label("station_name"),
            station.c.district,
            connector.c.operator_id,
            operator.c.name.label("operator_name"),
            connector.c.current,
            connector.c.accuracy_class,
            connector.c.model,
            connector.c.registered,
            assessment.c.relative_error,
            assessment.c.standard_uncertainty,
            assessment.c.common_uncertainty,
            assessment.c.mpe,
            assessment.c.p_nonconforming,
            assessment.c.verdict,
            assessment.c.tier,
            assessment.c.priority_money,
            assessment.c.data_to,
            latest_reading.c.at.label("latest_at"),
            open_codes,
        )
        .select_from(page)
        .join(connector, connector.c.connector_id == page.c.connector_id)
        .join(assessment, this_run, isouter=True)
        .join(station, station.c.station_id == connector.c.station_id, isouter=True)
        .join(operator, operator.c.operator_id == connector.c.operator_id, isouter=True)
        .join(
            latest_reading,
            latest_reading.c.connector_id == connector.c.connector_id,
            isouter=True,
        )
        .order_by(*order)
    )


async def piles(
    connection: AsyncConnection,
    wanted: PileFilter,
    *,
    run_id: int | None,
    scope: Scope,
    limit: int,
    offset: int,
) -> Sequence[RowMapping]:
    """Return one page of the list; only keys are read beyond the page."""
    candidates = await _candidates(connection, wanted, scope=scope)
    keys = _page_keys(wanted, run_id, scope=scope, candidates=candidates)
    result = await connection.execute(_rows(keys.limit(limit).offset(offset), wanted, run_id))
    return list(result.mappings())


async def count_piles(
    connection: AsyncConnection, wanted: PileFilter, *, run_id: int | None, scope: Scope
) -> int:
    """Return the length of the list; COUNT_LIMIT + 1 means more than COUNT_LIMIT."""
    candidates = await _candidates(connection, wanted, scope=scope)
    keys = _page_keys(wanted, run_id, scope=scope, candidates=candidates)
    counted = keys.order_by(None).limit(COUNT_LIMIT + 1).subquery("counted")
    statement = select(func.count()).select_from(counted)
    return int((await connection.execute(statement)).scalar_one())


async def stream_piles(
    connection: AsyncConnection, wanted: PileFilter, *, run_id: int | None, scope: Scope
) -> AsyncIterator[RowMapping]:
    """Yield the whole list row by row, for exports; memory stays bounded."""
    keys = _page_keys(wanted, run_id, scope=scope)
    result = await connection.stream(_rows(keys, wanted, run_id))
    async for row in result.mappings():
        yield row
