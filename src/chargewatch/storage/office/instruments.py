"""Search for registered instruments, and lists of the other rows of the registry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.storage import sql
from chargewatch.storage.pages.watched import SampleValues, watched

SearchBy = Literal["any", "connector", "serial", "certificate"]
State = Literal["", "valid", "due", "over", "failed", "never"]
STATES: tuple[State, ...] = ("valid", "due", "over", "failed", "never")
"""Of an instrument's verification; `due` is valid and ends soon, `failed` is a kind of over."""

# What pages show of an instrument.
_COLUMNS = (
    "c.connector_id, c.connector, c.pile, c.station_id, s.name AS station_name, s.district, "
    "c.operator_id, o.name AS operator_name, c.model, c.manufacturer, c.serial, c.current, "
    "c.accuracy_class, c.rated_power_w, v.until, coalesce(v.failed, false) AS failed, "
    "coalesce(v.verification_id, 0) AS cycle"
)
_JOINS = (
    "JOIN station s ON s.station_id = c.station_id "
    "JOIN operator o ON o.operator_id = c.operator_id "
    "LEFT JOIN instrument_validity v ON v.connector_id = c.connector_id "
)
SEARCH = sql.statement(
    "instruments: search",
    "SELECT {columns}, NULL::text AS matched FROM connector c {joins}WHERE c.registered{where} "
    "ORDER BY {key} USING ~<~, c.connector_id LIMIT :limit",
)
SEARCH_CERTIFICATE = sql.statement(
    "instruments: search a certificate",
    "SELECT {columns}, f.certificate AS matched FROM verification f "
    "JOIN connector c ON c.connector_id = f.connector_id {joins}"
    "WHERE c.registered AND f.withdrawn_at IS NULL{where} "
    "ORDER BY upper(f.certificate) USING ~<~, c.connector_id LIMIT :limit",
)
# Each branch ends early: a word that begins many names costs no more than one that begins few.
SEARCH_ANY = sql.statement(
    "instruments: search anything",
    "WITH found AS ("
    "(SELECT connector_id, NULL::text AS matched FROM connector WHERE registered "
    "AND upper(connector) LIKE :begin ORDER BY upper(connector) USING ~<~ LIMIT :limit) UNION ALL "
    "(SELECT connector_id, serial FROM connector WHERE registered AND upper(serial) LIKE :begin "
    "ORDER BY upper(serial) USING ~<~ LIMIT :limit) UNION ALL "
    "(SELECT connector_id, certificate FROM verification WHERE withdrawn_at IS NULL "
    "AND upper(certificate) LIKE :begin ORDER BY upper(certificate) USING ~<~ LIMIT :limit) "
    "UNION ALL (SELECT connector_id, NULL FROM connector WHERE registered "
    "AND station_id = :word LIMIT :limit) UNION ALL "
    "(SELECT connector_id, model FROM connector WHERE registered AND model = :word LIMIT :limit) "
    "UNION ALL (SELECT connector_id, manufacturer FROM connector WHERE registered "
    "AND manufacturer = :word LIMIT :limit)) "
    "SELECT {columns}, min(f.matched) OVER (PARTITION BY c.connector_id) AS matched "
    "FROM (SELECT connector_id, min(matched) AS matched FROM found GROUP BY connector_id) f "
    "JOIN connector c ON c.connector_id = f.connector_id {joins}WHERE c.registered{where} "
    "ORDER BY upper(c.connector) USING ~<~, c.connector_id LIMIT :limit",
)
_KEYS = {"connector": "upper(c.connector)", "serial": "upper(c.serial)"}
CERTIFICATE = "upper(f.certificate)"


@dataclass(frozen=True, kw_only=True)
class InstrumentFilter:
    """What instruments are wanted; an empty word narrows nothing.

    Attributes:
        text: how a name, serial number or certificate begins.
        by: which of them; "any" also finds a whole station, model or maker.
        state: of the verification on `today`; `due` ends before `soon`.
        after: key of the last row of the page before, and its connector_id.
    """

    text: str = ""
    by: SearchBy = "any"
    operator_id: str = ""
    station_id: str = ""
    district: str = ""
    model: str = ""
    manufacturer: str = ""
    pile: str = ""
    state: State = ""
    today: date
    soon: date
    after: tuple[str, int] | None = None


_STATE_CLAUSES: dict[State, str] = {
    "valid": "v.until >= :today",
    "due": "v.until >= :today AND v.until < :soon",
    "over": "v.until < :today",
    "failed": "v.until < :today AND v.failed",
    "never": "v.until IS NULL",
}


def begins(text: str) -> str:
    """Return the pattern of what begins with a text, whatever its case."""
    escaped = text.upper().replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"{escaped}%"


def narrowing(wanted: InstrumentFilter, *, scope: str | None) -> tuple[list[str], dict[str, Any]]:
    """Return the conditions of a filter, beside its text and its page, and their values."""
    equal = {
        "c.operator_id": wanted.operator_id,
        "c.station_id": wanted.station_id,
        "s.district": wanted.district,
        "c.model": wanted.model,
        "c.manufacturer": wanted.manufacturer,
        "c.pile": wanted.pile,
    }
    clauses: list[str] = []
    values: dict[str, Any] = {}
    for column, value in equal.items():
        if value:
            name = column.partition(".")[2]
            clauses.append(f"{column} = :{name}")
            values[name] = value
    if wanted.state:
        clause = _STATE_CLAUSES[wanted.state]
        clauses.append(clause)
        days = {"today": wanted.today, "soon": wanted.soon}
        values |= {name: day for name, day in days.items() if f":{name}" in clause}
    if scope is not None:
        clauses.append("c.operator_id = :scope")
        values["scope"] = scope
    return clauses, values


def _where(clauses: Sequence[str]) -> str:
    return "".join(f" AND {clause}" for clause in clauses)


def _sample(s: SampleValues, **more: Any) -> dict[str, Any]:
    day = s.now.date()
    return {
        "wanted": InstrumentFilter(today=day, soon=day, **more),
        "scope": None,
        "limit": 51,
    }


@watched(
    {
        "registry: search": lambda s: _sample(s),
        "registry: search any": lambda s: _sample(s, text=s.connector[:4]),
        "registry: search serial": lambda s: _sample(s, text="S", by="serial"),
        "registry: search certificate": lambda s: _sample(s, text="C", by="certificate"),
        "registry: search never verified": lambda s: _sample(s, state="never"),
        "registry: search over": lambda s: _sample(s, state="over"),
        "registry: search district": lambda s: _sample(s, district=s.district),
        "registry: search operator": lambda s: _sample(s, operator_id=s.operator_id),
        "registry: search station": lambda s: _sample(s, station_id=s.station_id),
    }
)
async def search(
    connection: AsyncConnection, *, wanted: InstrumentFilter, scope: str | None, limit: int
) -> Sequence[RowMapping]:
    """Return registered instruments in the order of what was searched by, or of their names.

    A search for anything has one page only.
    """
    clauses, values = narrowing(wanted, scope=scope)
    parts = {"columns": _COLUMNS, "joins": _JOINS}
    text = wanted.text.strip()
    if text and wanted.by == "any":
        values |= {"begin": begins(text), "word": text, "limit": limit}
        statement = SEARCH_ANY.filled(where=_where(clauses), **parts)
        return await sql.rows(connection, statement, **values)
    key = CERTIFICATE if text and wanted.by == "certificate" else _KEYS.get(wanted.by, "")
    key = key or _KEYS["connector"]
    if text:
        clauses.append(f"{key} LIKE :begin")
        values["begin"] = begins(text)
    if wanted.after is not None:
        clauses.append(f"{key} ~>=~ :after AND ({key} ~>~ :after OR c.connector_id > :after_id)")
        values |= {"after": wanted.after[0], "after_id": wanted.after[1]}
    values["limit"] = limit
    if key == CERTIFICATE:
        statement = SEARCH_CERTIFICATE.filled(where=_where(clauses), **parts)
    else:
        statement = SEARCH.filled(where=_where(clauses), key=key, **parts)
    return await sql.rows(connection, statement, **values)


def page_key(row: RowMapping, by: SearchBy, text: str) -> tuple[str, int]:
    """Return where the page after a row begins."""
    word = row["connector"]
    if text and by == "serial":
        word = row["serial"]
    elif text and by == "certificate":
        word = row["matched"]
    return str(word).upper(), int(row["connector_id"])


LISTED = {
    "operators": sql.statement(
        "registry list: operators",
        "SELECT operator_id AS name, operator_id AS key, name AS title, credit_code AS more "
        "FROM operator WHERE operator_id > :after{where} ORDER BY operator_id LIMIT :limit",
    ),
    "stations": sql.statement(
        "registry list: stations",
        "SELECT station_id AS name, station_id AS key, name AS title, address AS more "
        "FROM station WHERE station_id > :after{where} ORDER BY station_id LIMIT :limit",
    ),
    "reference_meters": sql.statement(
        "registry list: reference meters",
        "SELECT meter AS name, meter AS key, station_id AS title, certificate AS more "
        "FROM reference_meter WHERE registered AND meter > :after{where} "
        "ORDER BY meter LIMIT :limit",
    ),
    "tariffs": sql.statement(
        "registry list: tariffs",
        "SELECT tariff_id::text AS name, tariff_id::text AS key, "
        "operator_id || coalesce(' ' || NULLIF(station_id, ''), '') AS title, "
        "to_char(valid_from AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI\"Z\"') AS more "
        "FROM tariff WHERE tariff_id > CAST(:after AS bigint){where} "
        "ORDER BY tariff_id LIMIT :limit",
    ),
    "inspectors": sql.statement(
        "registry list: inspectors",
        "SELECT name, name AS key, array_to_string(recused_operators, ', ') AS title, "
        "CASE WHEN active THEN '' ELSE 'inactive' END AS more FROM inspector "
        "WHERE name > :after{where} ORDER BY name LIMIT :limit",
    ),
}
"""Lists that are looked through by their key; connectors are searched."""


@watched(
    {
        "registry: operators": lambda s: {"kind": "operators", "scope": None, "limit": 51},
        "registry: stations": lambda s: {"kind": "stations", "scope": None, "limit": 51},
        "registry: meters listed": lambda s: {
            "kind": "reference_meters",
            "scope": s.operator_id,
            "limit": 51,
        },
        "registry: tariffs": lambda s: {"kind": "tariffs", "scope": None, "limit": 51},
        "registry: inspectors": lambda s: {"kind": "inspectors", "scope": None, "limit": 51},
    }
)
async def listed(
    connection: AsyncConnection, *, kind: str, scope: str | None, limit: int, after: str = ""
) -> Sequence[RowMapping]:
    """Return the rows of a list after a key, each with its name, a title and some words more.

    An operator's user sees no inspectors.
    """
    if kind == "inspectors" and scope is not None:
        return []
    begin: str | int = after
    if kind == "tariffs":
        begin = int(after) if after.isascii() and after.isdecimal() and len(after) < 19 else 0
    if scope is None:
        statement = LISTED[kind].filled(where="")
        return await sql.rows(connection, statement, after=begin, limit=limit)
    statement = LISTED[kind].filled(where=" AND operator_id = :scope")
    return await sql.rows(connection, statement, after=begin, limit=limit, scope=scope)
