"""Statements on cases: opening and changing them, and what their pages ask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

from sqlalchemy import RowMapping, insert, update
from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.storage import sql
from chargewatch.storage.pages.city import PAGE_ROWS, Scope
from chargewatch.storage.pages.watched import Arguments, SampleValues, watched
from chargewatch.storage.tables import case_entry, office_case

_COLUMNS = ", ".join(column.name for column in office_case.columns)
_SEEN = "(CAST(:scope AS text) IS NULL OR (c.operator_id = :scope AND c.shown_at IS NOT NULL))"
"""An operator sees a case once the office has told it something."""

# Whoever opens a case holds its year: one opens at a time, and numbers have no holes.
HOLD_YEAR = sql.statement(
    "cases: hold year",
    "INSERT INTO case_year (year, last) VALUES (:year, 0) "
    "ON CONFLICT (year) DO UPDATE SET last = case_year.last RETURNING last",
)
TAKE_NUMBER = sql.statement(
    "cases: take number", "UPDATE case_year SET last = :last WHERE year = :year"
)
ADD_CASE = sql.statement(
    "cases: add",
    "INSERT INTO office_case (number, operator_id, station_id, connector, subject, origin, "  # noqa: S608
    "origin_key, title, state, deadline, opened_at, opened_by, flagged_at, changed_at) "
    "VALUES (:number, :operator_id, :station_id, :connector, :subject, :origin, :origin_key, "
    ":title, 'open', :deadline, :now, :opened_by, :flagged_at, :now) "
    "ON CONFLICT (operator_id, subject) WHERE state <> 'closed' DO NOTHING "
    f"RETURNING {_COLUMNS}",
)
OPEN_CASE_OF = sql.statement(
    "cases: open case of",
    f"SELECT {_COLUMNS} FROM office_case "  # noqa: S608 - a constant
    "WHERE operator_id = :operator_id AND subject = :subject AND state <> 'closed' FOR UPDATE",
)
HOLD_OPEN_CASES = sql.statement(
    "cases: hold open cases",
    f"SELECT {_COLUMNS} FROM office_case "  # noqa: S608 - a constant
    "WHERE (operator_id, subject) IN (SELECT * FROM unnest("
    "CAST(:operator_ids AS text[]), CAST(:subjects AS text[]))) AND state <> 'closed' "
    "ORDER BY case_id FOR UPDATE",
)
HOLD_CASES = sql.statement(
    "cases: hold cases",
    f"SELECT {_COLUMNS} FROM office_case "  # noqa: S608 - a constant
    "WHERE number = ANY(CAST(:numbers AS text[])) ORDER BY case_id FOR UPDATE",
)
HOLD_CASE = sql.statement(
    "cases: hold case",
    f"SELECT {_COLUMNS} FROM office_case WHERE case_id = :case_id FOR UPDATE",  # noqa: S608
)
CASE_BY_NUMBER = sql.statement(
    "cases: by number",
    f"SELECT {_COLUMNS} FROM office_case c WHERE number = :number AND {_SEEN}",  # noqa: S608
)
CASE_DETAIL = sql.statement(
    "cases: with names",
    "SELECT c.*, o.name AS operator_name, s.name AS station_name FROM office_case c "  # noqa: S608
    "LEFT JOIN operator o ON o.operator_id = c.operator_id "
    "LEFT JOIN station s ON s.station_id = c.station_id AND s.operator_id = c.operator_id "
    f"WHERE c.number = :number AND {_SEEN}",
)
ENTRIES = sql.statement(
    "cases: entries",
    "SELECT e.entry_id, e.at, e.author, e.kind, e.text, e.for_operator, e.detail, e.file_id, "
    "f.name AS file_name, f.media_type, f.size, f.sha256, u.operator_id AS author_operator "
    "FROM case_entry e LEFT JOIN office_file f USING (file_id) "
    "LEFT JOIN app_user u ON u.username = e.author "
    "WHERE e.case_id = :case_id AND (e.for_operator OR NOT :only_shown) "
    "ORDER BY e.entry_id LIMIT 2000",
)
FILE_OF_CASE = sql.statement(
    "cases: file of case",
    "SELECT file_id FROM case_entry WHERE file_id = :file_id AND case_id = :case_id "
    "AND (for_operator OR NOT :only_shown)",
)
CASES_OF_SUBJECT = sql.statement(
    "cases: of subject",
    "SELECT number, state, outcome, title, owner, deadline, opened_at, closed_at "  # noqa: S608
    "FROM office_case c WHERE subject = :subject AND operator_id = :operator_id "
    f"AND {_SEEN} ORDER BY case_id DESC LIMIT 20",
)
CASES_OF_STATION = sql.statement(
    "cases: of station",
    "SELECT number, state, outcome, title, owner, deadline, opened_at, closed_at, "  # noqa: S608
    "connector, subject FROM office_case c "
    "WHERE station_id = :station_id AND operator_id = :operator_id AND state <> 'closed' "
    f"AND {_SEEN} ORDER BY case_id DESC LIMIT 50",
)
OPEN_NUMBERS = sql.statement(
    "cases: open numbers",
    "SELECT operator_id, subject, number, state FROM office_case c "  # noqa: S608
    f"WHERE subject = ANY(CAST(:subjects AS text[])) AND state <> 'closed' AND {_SEEN}",
)
LIST = sql.statement(
    "cases: list",
    "SELECT c.*, o.name AS operator_name FROM (SELECT * FROM office_case c{where} "
    "ORDER BY {order} LIMIT :limit) c LEFT JOIN operator o ON o.operator_id = c.operator_id "
    "ORDER BY {order}",
)
# The closed ones are many, and only counted: an index alone does it.
COUNTS = sql.statement(
    "cases: counts",
    "SELECT state, count(*) AS cases, count(*) FILTER (WHERE deadline < :today) AS overdue "
    "FROM office_case WHERE state <> 'closed'{more} GROUP BY state "
    "UNION ALL SELECT 'closed', count(*), 0 FROM office_case WHERE state = 'closed'{more}",
)
USERS_NAMED = sql.statement(
    "cases: users named",
    "SELECT username, role, operator_id FROM app_user "
    "WHERE username = ANY(CAST(:names AS text[])) AND NOT disabled",
)
POSSIBLE_OWNERS = sql.statement(
    "cases: possible owners",
    "SELECT username, role FROM app_user "
    "WHERE NOT disabled AND role = ANY(CAST(:roles AS text[])) ORDER BY username",
)
# From the first run that flagged it after the last one that found it in order; a run that could
# say nothing ends no flag.
FLAGGED_SINCE = sql.statement(
    "cases: flagged since",
    "SELECT min(r.as_of) FROM assessment a JOIN risk_run r USING (run_id) "
    "WHERE a.connector_id = :connector_id AND r.state = 'finished' "
    "AND a.tier = ANY(CAST(:flagged AS text[])) AND r.as_of > coalesce(("
    "SELECT max(r.as_of) FROM assessment a JOIN risk_run r USING (run_id) "
    "WHERE a.connector_id = :connector_id AND r.state = 'finished' AND a.tier = 'green'), "
    "'-infinity'::timestamptz)",
)
VERIFIED_SINCE = sql.statement(
    "cases: verified since",
    "SELECT EXISTS (SELECT FROM verification WHERE connector_id = :connector_id "
    "AND verified_on >= :since)",
)
OPEN_SIGNAL_CODES = sql.statement(
    "cases: open signal codes",
    "SELECT DISTINCT code FROM signal WHERE operator_id = :operator_id "
    "AND station_id = :station_id AND closed_run IS NULL "
    "AND subject = ANY(CAST(:subjects AS text[]))",
)
SIGNAL = sql.statement(
    "cases: signal",
    "SELECT signal_id, code, subject, connector, station_id, operator_id, closed_run "
    "FROM signal WHERE signal_id = :signal_id",
)
STATION_EXISTS = sql.statement(
    "cases: station exists",
    "SELECT EXISTS (SELECT FROM station "
    "WHERE station_id = :station_id AND operator_id = :operator_id)",
)


@dataclass(frozen=True)
class CaseSort:
    """How a list is sorted, by a column that an index has, and how its next page begins."""

    order: str
    key: str
    beyond: str


SORTS: Mapping[str, CaseSort] = {
    "newest": CaseSort("case_id DESC", "case_id", "case_id < CAST(:after_id AS bigint)"),
    "changed": CaseSort(
        "changed_at DESC, case_id DESC",
        "changed_at",
        "(changed_at, case_id) < (CAST(:after_key AS timestamptz), CAST(:after_id AS bigint))",
    ),
    "deadline": CaseSort(
        "coalesce(deadline, 'infinity'::date), case_id",
        "deadline",
        "(coalesce(deadline, 'infinity'::date), case_id) > "
        "(coalesce(CAST(:after_key AS date), 'infinity'::date), CAST(:after_id AS bigint))",
    ),
}


@dataclass(frozen=True, kw_only=True)
class CaseFilter:
    """What a list of cases is narrowed to; an empty field narrows nothing.

    Attributes:
        state: a state, "" for all that are not closed, or "all".
        owner: a user's name, or "-" for cases that nobody owns.
        overdue: whether only those whose deadline is past are wanted.
    """

    state: str = ""
    owner: str = ""
    operator_id: str = ""
    subject: str = ""
    overdue: bool = False
    sort: str = "newest"


@dataclass
class _Where:
    clauses: list[str] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)

    def add(self, clause: str, **values: Any) -> None:
        self.clauses.append(clause)
        self.values |= values

    def text(self) -> str:
        return f" WHERE {' AND '.join(self.clauses)}" if self.clauses else ""


def _narrowed(wanted: CaseFilter, *, scope: Scope, today: date, with_state: bool) -> _Where:
    where = _Where()
    if scope is not None:
        where.add("operator_id = :scope AND shown_at IS NOT NULL", scope=scope)
    if wanted.operator_id:
        where.add("operator_id = :operator_id", operator_id=wanted.operator_id)
    if wanted.subject:
        where.add("subject = :subject", subject=wanted.subject)
    if wanted.owner == "-":
        where.add("owner IS NULL")
    elif wanted.owner:
        where.add("owner = :owner", owner=wanted.owner)
    if not with_state:
        return where
    if wanted.overdue:
        # Nothing that is closed is overdue; the index of deadlines holds open cases only.
        where.add(
            "state <> 'closed' AND coalesce(deadline, 'infinity'::date) < :today", today=today
        )
    if wanted.state in ("", "all"):
        if not wanted.state and not wanted.overdue:
            where.add("state <> 'closed'")
    else:
        where.add("state = :state", state=wanted.state)
    return where


async def hold_year(connection: AsyncConnection, year: int) -> int:
    """Let nobody else open a case of a year until the commit; return the last number of it."""
    return int(await sql.value(connection, HOLD_YEAR, year=year))


async def add_case(
    connection: AsyncConnection, *, year: int, last: int, values: Mapping[str, Any]
) -> RowMapping | None:
    """Add a case after `hold_year`; None when one is open for its subject already."""
    number = last + 1
    row = await sql.row(connection, ADD_CASE, number=f"{year}-{number:06d}", **values)
    if row is not None:
        await sql.run(connection, TAKE_NUMBER, year=year, last=number)
    return row


async def open_case_of(
    connection: AsyncConnection, *, operator_id: str, subject: str
) -> RowMapping | None:
    """Return the open case of a subject and let nobody else change it until the commit."""
    return await sql.row(connection, OPEN_CASE_OF, operator_id=operator_id, subject=subject)


async def hold_open_cases(
    connection: AsyncConnection, pairs: Sequence[tuple[str, str]]
) -> Sequence[RowMapping]:
    """Return the open cases of pairs of operator and subject, held in the order of their key."""
    return await sql.rows(
        connection,
        HOLD_OPEN_CASES,
        operator_ids=[operator_id for operator_id, _ in pairs],
        subjects=[subject for _, subject in pairs],
    )


async def hold_cases(connection: AsyncConnection, numbers: Sequence[str]) -> Sequence[RowMapping]:
    """Return cases by number and let nobody else change them until the commit."""
    return await sql.rows(connection, HOLD_CASES, numbers=list(numbers))


async def hold_case(connection: AsyncConnection, case_id: int) -> RowMapping | None:
    """Return a case and let nobody else change it until the commit."""
    return await sql.row(connection, HOLD_CASE, case_id=case_id)


async def change_case(
    connection: AsyncConnection, case_id: int, values: Mapping[str, Any]
) -> RowMapping:
    """Change columns of a case and return it."""
    statement = (
        update(office_case)
        .where(office_case.c.case_id == case_id)
        .values(**values)
        .returning(office_case)
    )
    row: RowMapping = (await connection.execute(statement)).mappings().one()
    return row


async def add_entry(connection: AsyncConnection, values: Mapping[str, Any]) -> int:
    """Add an entry of a case and return its entry_id."""
    statement = insert(case_entry).values(**values).returning(case_entry.c.entry_id)
    return int((await connection.execute(statement)).scalar_one())


@watched({"case": lambda s: {"number": "2026-000001", "scope": None}})
async def case_by_number(
    connection: AsyncConnection, number: str, *, scope: Scope
) -> RowMapping | None:
    """Return a case; None when there is none that may be seen."""
    return await sql.row(connection, CASE_BY_NUMBER, number=number, scope=scope)


@watched({"case: with names": lambda s: {"number": "2026-000001", "scope": None}})
async def case_detail(
    connection: AsyncConnection, number: str, *, scope: Scope
) -> RowMapping | None:
    """Return a case with the names of operator and station; None when none may be seen."""
    return await sql.row(connection, CASE_DETAIL, number=number, scope=scope)


@watched({"case: entries": lambda s: {"case_id": 1, "only_shown": True}})
async def entries(
    connection: AsyncConnection, case_id: int, *, only_shown: bool
) -> Sequence[RowMapping]:
    """Return what was done and said in a case, in order; for operators what they are shown."""
    return await sql.rows(connection, ENTRIES, case_id=case_id, only_shown=only_shown)


async def is_file_of_case(
    connection: AsyncConnection, file_id: int, *, case_id: int, only_shown: bool
) -> bool:
    """Return whether a file belongs to a case, and may be seen."""
    found = await sql.value(
        connection, FILE_OF_CASE, file_id=file_id, case_id=case_id, only_shown=only_shown
    )
    return found is not None


def _of_pile(s: SampleValues) -> dict[str, Any]:
    return {
        "subject": f"connector:{s.connector}",
        "operator_id": s.operator_id,
        "scope": s.operator_id,
    }


@watched({"cases: of pile": _of_pile})
async def cases_of_subject(
    connection: AsyncConnection, subject: str, *, operator_id: str, scope: Scope
) -> Sequence[RowMapping]:
    """Return the cases of a subject, the newest first."""
    return await sql.rows(
        connection, CASES_OF_SUBJECT, subject=subject, operator_id=operator_id, scope=scope
    )


@watched(
    {
        "cases: of station": lambda s: {
            "station_id": s.station_id,
            "operator_id": s.operator_id,
            "scope": None,
        }
    }
)
async def open_cases_of_station(
    connection: AsyncConnection, station_id: str, *, operator_id: str, scope: Scope
) -> Sequence[RowMapping]:
    """Return the open cases of a station and everything at it, the newest first."""
    return await sql.rows(
        connection, CASES_OF_STATION, station_id=station_id, operator_id=operator_id, scope=scope
    )


@watched(
    {"cases: of a page of piles": lambda s: {"subjects": [f"connector:{s.connector}"] * 50,
                                            "scope": None}}
)  # fmt: skip
async def open_numbers(
    connection: AsyncConnection, subjects: Sequence[str], *, scope: Scope
) -> dict[tuple[str, str], RowMapping]:
    """Return the open cases of subjects by operator and subject."""
    if not subjects:
        return {}
    found = await sql.rows(connection, OPEN_NUMBERS, subjects=list(subjects), scope=scope)
    return {(row["operator_id"], row["subject"]): row for row in found}


def _page(wanted: CaseFilter, *, scope: Scope = None, s: SampleValues) -> dict[str, Any]:
    return {"wanted": wanted, "scope": scope, "today": s.now.date(), "limit": PAGE_ROWS,
            "after": None}  # fmt: skip


def _by(sort: str) -> Arguments:
    return lambda s: _page(CaseFilter(sort=sort), s=s)


@watched(
    {
        **{f"cases by {sort}": _by(sort) for sort in SORTS},
        "cases: overdue": lambda s: _page(CaseFilter(overdue=True, sort="deadline"), s=s),
        "cases: scope": lambda s: _page(CaseFilter(state="all"), scope=s.operator_id, s=s),
        "cases: owner": lambda s: _page(CaseFilter(owner="wang"), s=s),
    }
)
async def cases(
    connection: AsyncConnection,
    wanted: CaseFilter,
    *,
    scope: Scope,
    today: date,
    limit: int,
    after: tuple[Any, int] | None,
) -> Sequence[RowMapping]:
    """Return one page of cases; `after` is the sort's key and case_id of the page before."""
    sort = SORTS[wanted.sort]
    where = _narrowed(wanted, scope=scope, today=today, with_state=True)
    if after is not None:
        key = {"after_key": after[0]} if ":after_key" in sort.beyond else {}
        where.add(sort.beyond, after_id=after[1], **key)
    statement = LIST.filled(where=where.text(), order=sort.order)
    return await sql.rows(connection, statement, limit=limit, **where.values)


@watched(
    {
        "cases: counts": lambda s: {
            "wanted": CaseFilter(),
            "scope": None,
            "today": s.now.date(),
        }
    }
)
async def case_counts(
    connection: AsyncConnection, wanted: CaseFilter, *, scope: Scope, today: date
) -> tuple[dict[str, int], int]:
    """Return how many cases a filter leaves by state, whatever state it wants; and overdue."""
    where = _narrowed(wanted, scope=scope, today=today, with_state=False)
    more = "".join(f" AND {clause}" for clause in where.clauses)
    statement = COUNTS.filled(more=more)
    found = await sql.rows(connection, statement, today=today, **where.values)
    return {row["state"]: row["cases"] for row in found}, sum(row["overdue"] for row in found)


async def users_named(connection: AsyncConnection, names: Sequence[str]) -> Sequence[RowMapping]:
    """Return name, role and operator of the enabled users among names."""
    return await sql.rows(connection, USERS_NAMED, names=list(names)) if names else []


async def possible_owners(
    connection: AsyncConnection, roles: Sequence[str]
) -> Sequence[RowMapping]:
    """Return the enabled users of roles, by name."""
    return await sql.rows(connection, POSSIBLE_OWNERS, roles=list(roles))


async def flagged_since(
    connection: AsyncConnection, connector_id: int, *, flagged: Sequence[str]
) -> datetime | None:
    """Return since when a connector has been flagged without having been found in order."""
    found: datetime | None = await sql.value(
        connection, FLAGGED_SINCE, connector_id=connector_id, flagged=list(flagged)
    )
    return found


async def verified_since(connection: AsyncConnection, connector_id: int, *, since: date) -> bool:
    """Return whether a connector was verified on a day or later."""
    return bool(await sql.value(connection, VERIFIED_SINCE, connector_id=connector_id, since=since))


async def open_signal_codes(
    connection: AsyncConnection, subjects: Sequence[str], *, operator_id: str, station_id: str
) -> set[str]:
    """Return the codes of the open signals of things at a station."""
    found = await sql.rows(
        connection,
        OPEN_SIGNAL_CODES,
        operator_id=operator_id,
        station_id=station_id,
        subjects=list(subjects),
    )
    return {row["code"] for row in found}


async def signal(connection: AsyncConnection, signal_id: int) -> RowMapping | None:
    """Return what an integrity signal is about."""
    return await sql.row(connection, SIGNAL, signal_id=signal_id)


async def station_exists(connection: AsyncConnection, station_id: str, *, operator_id: str) -> bool:
    """Return whether the registry has a station of an operator."""
    return bool(
        await sql.value(connection, STATION_EXISTS, station_id=station_id, operator_id=operator_id)
    )
