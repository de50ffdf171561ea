"""Grades, drafts and self-commitments: what is kept of them, and what pages ask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from sqlalchemy import RowMapping, insert
from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.storage import sql
from chargewatch.storage.locks import LOCK_IN_TRANSACTION, AdvisoryLock
from chargewatch.storage.pages.watched import watched
from chargewatch.storage.tables import credit_draft, credit_grade, self_commitment

MONTH_OF = sql.statement(
    "credit: published of a month",
    "SELECT DISTINCT ON (operator_id) operator_id, revision, grade, score, arithmetic "
    "FROM credit_grade WHERE month = :month ORDER BY operator_id, revision DESC",
)
DELETE_DRAFTS = sql.statement(
    "credit: delete drafts", "DELETE FROM credit_draft WHERE month = :month"
)
ORDERS = {
    "score": "g.score, o.operator_id",
    "score_down": "g.score DESC NULLS LAST, o.operator_id",
    "name": "o.name, o.operator_id",
}
"""How the list of operators can be sorted; the lowest score first, as it is worked on."""
LIST = sql.statement(
    "credit: operators with grades",
    "SELECT o.*, d.month AS draft_month, d.grade AS draft_grade, d.score AS draft_score, "
    "CAST(coalesce(d.connectors, o.known_connectors) AS bigint) AS connectors, "
    "ARRAY(SELECT DISTINCT ON (t.month) to_char(t.month, 'YYYY-MM') || ' ' || "
    "coalesce(t.grade, '-') FROM credit_grade t WHERE t.operator_id = o.operator_id "
    "AND t.month > o.month - interval '12 months' ORDER BY t.month, t.revision DESC) AS trend "
    "FROM (SELECT o.operator_id, o.name, g.month, g.grade, g.score, g.worst, "
    "g.arithmetic -> 'facts' -> 'coverage' ->> 'all' AS known_connectors, "
    "count(*) OVER () AS total, row_number() OVER (ORDER BY {order}) AS place "
    "FROM operator o LEFT JOIN LATERAL (SELECT * FROM credit_grade g "
    "WHERE g.operator_id = o.operator_id ORDER BY g.month DESC, g.revision DESC LIMIT 1) g "
    "ON true WHERE {where} ORDER BY place LIMIT :limit OFFSET :offset) o "
    "LEFT JOIN LATERAL (SELECT d.month, d.grade, d.score, "
    "d.arithmetic -> 'facts' -> 'coverage' ->> 'all' AS connectors FROM credit_draft d "
    "WHERE d.operator_id = o.operator_id ORDER BY d.month DESC LIMIT 1) d ON true "
    "ORDER BY o.place",
)
NARROWED = {
    "scope": "o.operator_id = :scope",
    "grade": "coalesce(g.grade, '-') = :grade",
    "words": "(strpos(lower(o.name), lower(:words)) > 0 "
    "OR strpos(lower(o.operator_id), lower(:words)) > 0)",
}
ONE = sql.statement(
    "credit: operator",
    "SELECT operator_id, name, credit_code FROM operator WHERE operator_id = :operator_id",
)
HISTORY = sql.statement(
    "credit: history",
    "SELECT month, revision, grade, score, worst, rule_version, made_at, why "
    "FROM credit_grade WHERE operator_id = :operator_id "
    "ORDER BY month DESC, revision DESC LIMIT :limit",
)
GRADE = sql.statement(
    "credit: grade",
    "SELECT operator_id, month, revision, grade, score, arithmetic, made_at, why FROM credit_grade "
    "WHERE operator_id = :operator_id AND (CAST(:month AS date) IS NULL OR month = :month) "
    "AND (CAST(:revision AS integer) IS NULL OR revision = :revision) "
    "ORDER BY month DESC, revision DESC LIMIT 1",
)
DRAFT = sql.statement(
    "credit: draft",
    "SELECT operator_id, month, grade, score, arithmetic, made_at FROM credit_draft "
    "WHERE operator_id = :operator_id AND (CAST(:month AS date) IS NULL OR month = :month) "
    "ORDER BY month DESC LIMIT 1",
)
COMMITMENTS = sql.statement(
    "credit: commitments of an operator",
    "SELECT commitment_id, operator_id, text, made_on, until, made_by, kept, decided_on, "
    "decided_by, why, published FROM self_commitment WHERE operator_id = :operator_id "
    "AND (published OR NOT :only_published) ORDER BY commitment_id DESC LIMIT :limit",
)
COMMITMENT = sql.statement(
    "credit: commitment",
    "SELECT * FROM self_commitment WHERE commitment_id = :commitment_id "
    "AND operator_id = :operator_id FOR UPDATE",
)
DECIDE = sql.statement(
    "credit: decide commitment",
    "UPDATE self_commitment SET kept = :kept, decided_on = :day, decided_by = :actor, "
    "why = :why WHERE commitment_id = :commitment_id",
)
PUBLISH_COMMITMENT = sql.statement(
    "credit: publish commitment",
    "UPDATE self_commitment SET published = true WHERE commitment_id = :commitment_id",
)
PUBLIC = sql.statement(
    "credit: public operators",
    "SELECT o.operator_id, o.name, g.month, g.revision, g.grade, g.score, g.rule_version, "
    "g.made_at FROM operator o LEFT JOIN LATERAL (SELECT * FROM credit_grade g "
    "WHERE g.operator_id = o.operator_id ORDER BY g.month DESC, g.revision DESC LIMIT 1) g "
    "ON true WHERE o.operator_id > :after ORDER BY o.operator_id LIMIT :limit",
)
PUBLIC_COMMITMENTS = sql.statement(
    "credit: public commitments",
    "SELECT operator_id, text, made_on, until, kept, decided_on, why FROM self_commitment "
    "WHERE operator_id = ANY(CAST(:operators AS text[])) AND published "
    "ORDER BY operator_id, commitment_id DESC",
)
CASES = sql.statement(
    "credit: cases of an operator",
    "SELECT number, title, state, outcome, opened_at, closed_at FROM office_case "
    "WHERE operator_id = :operator_id AND (shown_at IS NOT NULL OR NOT :only_shown) "
    "ORDER BY case_id DESC LIMIT :limit",
)
COMPLAINTS = sql.statement(
    "credit: complaints of an operator",
    "SELECT p.state, c.outcome, count(*) AS complaints FROM complaint p "
    "LEFT JOIN office_case c USING (case_id) WHERE p.operator_id = :operator_id "
    "GROUP BY p.state, c.outcome ORDER BY p.state, c.outcome",
)


async def grade_alone(connection: AsyncConnection) -> None:
    """Wait until nobody else keeps grades, and keep others waiting up to the commit."""
    await sql.run(connection, LOCK_IN_TRANSACTION, key=AdvisoryLock.CREDIT)


async def published_of(connection: AsyncConnection, month: date) -> dict[str, RowMapping]:
    """Return the newest revision of each grade of a month, by operator."""
    found = await sql.rows(connection, MONTH_OF, month=month)
    return {row["operator_id"]: row for row in found}


async def replace_drafts(
    connection: AsyncConnection, month: date, rows: Sequence[Mapping[str, Any]]
) -> None:
    """Keep drafts of a month in place of those it had."""
    await sql.run(connection, DELETE_DRAFTS, month=month)
    if rows:
        await connection.execute(insert(credit_draft), list(rows))


async def add_grades(connection: AsyncConnection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Publish grades."""
    if rows:
        await connection.execute(insert(credit_grade), list(rows))


@watched(
    {
        "operators": lambda s: {"scope": None, "limit": 50},
        "operators: scope": lambda s: {"scope": s.operator_id, "limit": 50},
    }
)
async def operators(
    connection: AsyncConnection,
    *,
    scope: str | None,
    limit: int,
    offset: int = 0,
    grade: str = "",
    words: str = "",
    sort: str = "score",
) -> Sequence[RowMapping]:
    """Return operators with their newest published grade, the draft after it, and the trend.

    Args:
        connection: with the tables.
        scope: None, or the only operator.
        limit: rows at most.
        offset: rows before.
        grade: only with this one; `-`: without any.
        words: only whose name or identifier holds them.
        sort: one of ORDERS.
    """
    wanted = {"scope": scope, "grade": grade, "words": words}
    given = {name: value for name, value in wanted.items() if value}
    where = " AND ".join(NARROWED[name] for name in given) or "true"
    statement = LIST.filled(where=where, order=ORDERS[sort])
    values: dict[str, Any] = {"limit": limit, "offset": offset, **given}
    return await sql.rows(connection, statement, **values)


@watched({"operator": lambda s: {"operator_id": s.operator_id}})
async def operator_row(connection: AsyncConnection, operator_id: str) -> RowMapping | None:
    """Return an operator of the registry."""
    return await sql.row(connection, ONE, operator_id=operator_id)


@watched({"operator: history": lambda s: {"operator_id": s.operator_id}})
async def history(
    connection: AsyncConnection, operator_id: str, *, limit: int = 60
) -> Sequence[RowMapping]:
    """Return an operator's published grades with all revisions, the newest first."""
    return await sql.rows(connection, HISTORY, operator_id=operator_id, limit=limit)


@watched({"operator: grade": lambda s: {"operator_id": s.operator_id}})
async def published(
    connection: AsyncConnection,
    operator_id: str,
    *,
    month: date | None = None,
    revision: int | None = None,
) -> RowMapping | None:
    """Return a published grade with its arithmetic; the newest that is asked for."""
    return await sql.row(connection, GRADE, operator_id=operator_id, month=month, revision=revision)


@watched({"operator: draft": lambda s: {"operator_id": s.operator_id}})
async def draft(
    connection: AsyncConnection, operator_id: str, *, month: date | None = None
) -> RowMapping | None:
    """Return the newest draft of an operator, or that of a month."""
    return await sql.row(connection, DRAFT, operator_id=operator_id, month=month)


async def add_commitment(connection: AsyncConnection, values: Mapping[str, Any]) -> int:
    """Keep a commitment and return its number."""
    statement = insert(self_commitment).values(**values).returning(self_commitment.c.commitment_id)
    return int((await connection.execute(statement)).scalar_one())


@watched({"operator: commitments": lambda s: {"operator_id": s.operator_id}})
async def commitments(
    connection: AsyncConnection,
    operator_id: str,
    *,
    only_published: bool = False,
    limit: int = 100,
) -> Sequence[RowMapping]:
    """Return an operator's commitments, the newest first."""
    return await sql.rows(
        connection,
        COMMITMENTS,
        operator_id=operator_id,
        only_published=only_published,
        limit=limit,
    )


async def lock_commitment(
    connection: AsyncConnection, operator_id: str, commitment_id: int
) -> RowMapping | None:
    """Return a commitment of an operator and keep others from changing it."""
    return await sql.row(
        connection, COMMITMENT, operator_id=operator_id, commitment_id=commitment_id
    )


async def decide_commitment(
    connection: AsyncConnection, commitment_id: int, *, kept: bool, day: date, actor: str, why: str
) -> None:
    """Say whether a commitment was kept."""
    await sql.run(
        connection,
        DECIDE,
        commitment_id=commitment_id,
        kept=kept,
        day=day,
        actor=actor,
        why=why,
    )


async def publish_commitment(connection: AsyncConnection, commitment_id: int) -> None:
    """Show a commitment to the public."""
    await sql.run(connection, PUBLISH_COMMITMENT, commitment_id=commitment_id)


@watched({"public: operators": lambda s: {"after": "", "limit": 200}})
async def public_operators(
    connection: AsyncConnection, *, after: str, limit: int
) -> Sequence[RowMapping]:
    """Return operators with their newest published grade, in the order of their identifiers."""
    return await sql.rows(connection, PUBLIC, after=after, limit=limit)


@watched({"public: commitments": lambda s: {"operators": [s.operator_id]}})
async def public_commitments(
    connection: AsyncConnection, operators: Sequence[str]
) -> Sequence[RowMapping]:
    """Return the published commitments of operators."""
    return await sql.rows(connection, PUBLIC_COMMITMENTS, operators=list(operators))


@watched({"operator: cases": lambda s: {"operator_id": s.operator_id, "only_shown": True}})
async def cases(
    connection: AsyncConnection, operator_id: str, *, only_shown: bool, limit: int = 20
) -> Sequence[RowMapping]:
    """Return an operator's newest cases; `only_shown`: those that it was told of."""
    return await sql.rows(
        connection, CASES, operator_id=operator_id, only_shown=only_shown, limit=limit
    )


@watched({"operator: complaints": lambda s: {"operator_id": s.operator_id}})
async def complaints(connection: AsyncConnection, operator_id: str) -> Sequence[RowMapping]:
    """Return how many complaints of an operator there are, by state and outcome of their case."""
    return await sql.rows(connection, COMPLAINTS, operator_id=operator_id)
