"""What an operator may say to a case: a reply, and an objection to how it was closed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.storage.office import cases as rows
from chargewatch.supervision.audit import Actor
from chargewatch.supervision.cases.model import (
    LONGEST_CASE_TEXT,
    Case,
    CaseConflictError,
    CaseRoleError,
    CaseState,
    EntryKind,
    required_text,
)
from chargewatch.supervision.cases.working import (
    CaseChange,
    held_case,
    open_elsewhere,
    write_into,
)
from chargewatch.supervision.files import CheckedFile
from chargewatch.supervision.permissions import Role

OBJECTION_TERM = timedelta(days=60)
"""How long after closing an objection opens the case again.

As an application for administrative reconsideration has (Administrative Reconsideration Law of the
PRC, article 20); not checked against a rule of the metrology authority's own.
"""


def _office_has_it(case: Case) -> CaseState:
    return CaseState.OPEN if case.owner is None else CaseState.ASSIGNED


async def reply(
    connection: AsyncConnection,
    actor: Actor,
    case_id: int,
    *,
    text: str,
    files: Sequence[CheckedFile] = (),
    now: datetime,
) -> CaseChange:
    """Write an operator's reply; a case that waited for it is the office's again.

    Raises: NotFoundError, CaseError without a text, CaseRoleError for anybody else,
        CaseConflictError when it is closed.
    """
    case = await _held_of_operator(connection, actor, case_id)
    if not case.is_open:
        raise CaseConflictError(f"case {case.number} is closed: object to it instead")
    text = required_text(text, what="reply", most=LONGEST_CASE_TEXT)
    waited = case.state is CaseState.WAITING
    return await write_into(
        connection,
        case,
        actor,
        EntryKind.REPLY,
        text=text,
        files=files,
        for_operator=True,
        now=now,
        **({"state": _office_has_it(case).value} if waited else {}),
    )


async def object_to(
    connection: AsyncConnection,
    actor: Actor,
    case_id: int,
    *,
    text: str,
    files: Sequence[CheckedFile] = (),
    now: datetime,
) -> CaseChange:
    """Write an operator's objection.

    The first one within OBJECTION_TERM after closing opens the case again, with its owner: another
    look is due, and nothing is decided by it. A later one, a second one, or one to a case for
    whose subject another case is open by now, is recorded and decides nothing either: a supervisor
    may open the case again. To an open case it is recorded.

    Raises: NotFoundError, CaseError without a text, CaseRoleError for anybody else.
    """
    case = await _held_of_operator(connection, actor, case_id)
    text = required_text(text, what="reason of the objection", most=LONGEST_CASE_TEXT)
    changes: dict[str, str | None] = {}
    if case.state is CaseState.WAITING:
        changes = {"state": _office_has_it(case).value}
    elif await _opens_again(connection, case, now=now):
        changes = {"state": _office_has_it(case).value, "outcome": None, "closed_at": None}
    return await write_into(
        connection,
        case,
        actor,
        EntryKind.OBJECTION,
        text=text,
        files=files,
        for_operator=True,
        now=now,
        **changes,
    )


async def attach(
    connection: AsyncConnection,
    actor: Actor,
    case_id: int,
    *,
    files: Sequence[CheckedFile],
    now: datetime,
) -> CaseChange:
    """Keep an operator's files in a case that it sees; closed ones take more, too.

    Raises: NotFoundError, CaseRoleError for anybody else.
    """
    case = await _held_of_operator(connection, actor, case_id)
    return await write_into(
        connection,
        case,
        actor,
        EntryKind.COMMENT,
        text="",
        files=files,
        for_operator=True,
        now=now,
    )


async def _opens_again(connection: AsyncConnection, case: Case, *, now: datetime) -> bool:
    if case.closed_at is None or now - case.closed_at > OBJECTION_TERM:
        return False
    entries = await rows.entries(connection, case.case_id, only_shown=True)
    if any(row["kind"] == EntryKind.OBJECTION for row in entries):
        return False
    return await open_elsewhere(connection, case, now=now) is None


async def _held_of_operator(connection: AsyncConnection, actor: Actor, case_id: int) -> Case:
    if actor.role != Role.OPERATOR:
        raise CaseRoleError("replies and objections are the operator's: write a comment instead")
    return await held_case(connection, case_id)
