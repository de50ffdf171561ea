"""Taking the steps of a case, and writing into it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.errors import NotFoundError
from chargewatch.storage.office import cases as rows
from chargewatch.supervision.audit import Action, Actor
from chargewatch.supervision.cases.data_lack import LACKS, lack_of_data
from chargewatch.supervision.cases.entries import CaseTold, tell, touch, write_files, write_text
from chargewatch.supervision.cases.model import (
    LONGEST_CASE_TEXT,
    LONGEST_REASON,
    Case,
    CaseConflictError,
    CaseError,
    CaseOutcome,
    CaseRoleError,
    EntryKind,
    case_of,
    checked_text,
    required_text,
)
from chargewatch.supervision.cases.opening import check_deadline
from chargewatch.supervision.cases.steps import (
    WORKERS,
    StepName,
    check_owner,
    check_step,
    is_manager,
    target_of,
)
from chargewatch.supervision.files import CheckedFile
from chargewatch.supervision.permissions import Role

_ACTIONS = {StepName.CLOSE: Action.CASE_CLOSED, StepName.REOPEN: Action.CASE_REOPENED}


@dataclass(frozen=True, kw_only=True)
class StepRequest:
    """A step that somebody wants to take.

    Attributes:
        step: which.
        why: the reason; of `ask` the question to the operator.
        owner: of `assign`, to whom.
        deadline: of `assign`, `ask` and `deadline`; None leaves it, of `deadline` it goes.
        outcome: of `close`.
        for_operator: of `close`, whether the operator is told.
    """

    step: StepName
    why: str = ""
    owner: str = ""
    deadline: date | None = None
    outcome: CaseOutcome | None = None
    for_operator: bool = True


@dataclass(frozen=True, kw_only=True)
class CaseChange:
    """A case after something was written, and the names after @ that nobody has who may read it."""

    case: Case
    unknown_mentions: Sequence[str] = ()


async def held_case(connection: AsyncConnection, case_id: int) -> Case:
    """Return a case that nobody else changes until the commit.

    Raises: NotFoundError.
    """
    row = await rows.hold_case(connection, case_id)
    if row is None:
        raise NotFoundError(f"no case with case_id {case_id}")
    return case_of(row)


async def _check_worker(connection: AsyncConnection, owner: str) -> None:
    for row in await rows.users_named(connection, [owner]):
        if row["role"] in WORKERS:
            return
        raise CaseError(f"{owner} is {row['role']}: cases are owned by inspectors and supervisors")
    raise CaseError(f"no user {owner!r} who is enabled: see `chargewatch user list`")


async def _changes_of(
    connection: AsyncConnection, case: Case, actor: Actor, wanted: StepRequest, *, now: datetime
) -> dict[str, Any]:
    """Return the columns that a permitted step changes.

    Raises: CaseError, CaseRoleError, CaseConflictError.
    """
    changes: dict[str, Any] = {}
    state = target_of(case, wanted.step)
    if state is not case.state:
        changes["state"] = state.value
    if wanted.deadline is not None or wanted.step is StepName.DEADLINE:
        if not is_manager(actor):
            raise CaseRoleError(f"case {case.number}: supervisors and administrators set deadlines")
        check_deadline(wanted.deadline, now=now)
        changes["deadline"] = wanted.deadline
    if wanted.step is StepName.ASSIGN:
        owner = required_text(wanted.owner, what="user name to assign it to", most=64)
        check_owner(case, owner, actor)
        await _check_worker(connection, owner)
        changes["owner"] = owner
    elif wanted.step is StepName.RELEASE:
        changes["owner"] = None
    elif wanted.step is StepName.CLOSE:
        if wanted.outcome is None:
            names = ", ".join(CaseOutcome)
            raise CaseError(f"case {case.number}: say the outcome: {names}")
        await _check_outcome(connection, case, wanted.outcome)
        changes |= {"outcome": wanted.outcome.value, "closed_at": now}
    elif wanted.step is StepName.REOPEN:
        await _check_alone(connection, case, now=now)
        changes |= {"outcome": None, "closed_at": None}
    return changes


async def _check_outcome(connection: AsyncConnection, case: Case, outcome: CaseOutcome) -> None:
    if outcome is not CaseOutcome.NOT_CONFIRMED:
        return
    lack = await lack_of_data(connection, case)
    if lack:
        raise CaseConflictError(
            f"case {case.number} can't be closed as not confirmed: {LACKS[lack]}. Verify the pile "
            "and enter the result, or close the case as inconclusive"
        )


async def open_elsewhere(connection: AsyncConnection, case: Case, *, now: datetime) -> Case | None:
    """Return the open case of a closed case's subject; none can be opened until the commit."""
    await rows.hold_year(connection, now.year)
    found = await rows.open_case_of(connection, operator_id=case.operator_id, subject=case.subject)
    return None if found is None else case_of(found)


async def _check_alone(connection: AsyncConnection, case: Case, *, now: datetime) -> None:
    other = await open_elsewhere(connection, case, now=now)
    if other is not None:
        raise CaseConflictError(
            f"case {case.number} can't be opened again: case {other.number} is open for the same "
            "thing; go on there"
        )


def _needs_reason(case: Case, wanted: StepRequest) -> bool:
    takes_away = wanted.step is StepName.ASSIGN and case.owner is not None
    sets_deadline = wanted.deadline is not None or wanted.step is StepName.DEADLINE
    return takes_away or (sets_deadline and case.deadline not in (None, wanted.deadline))


async def take_step(
    connection: AsyncConnection, case: Case, actor: Actor, wanted: StepRequest, *, now: datetime
) -> tuple[CaseChange, CaseTold]:
    """Take a step of a held case; the caller writes what is to be audited.

    Raises: CaseError, CaseRoleError, CaseConflictError.
    """
    step = check_step(case, wanted.step, actor)
    most = LONGEST_REASON
    if step.needs_reason or _needs_reason(case, wanted):
        why = required_text(wanted.why, what="reason", most=most)
    else:
        why = checked_text(wanted.why, what="reason", most=most)
    changes = await _changes_of(connection, case, actor, wanted, now=now)
    shown = wanted.step is StepName.ASK or (wanted.step is StepName.CLOSE and wanted.for_operator)
    before = {
        "state": case.state.value,
        "owner": case.owner,
        "deadline": None if case.deadline is None else case.deadline.isoformat(),
        "outcome": case.outcome,
    }
    after = {
        key: value.isoformat() if isinstance(value, date) else value
        for key, value in changes.items()
        if key in before
    }
    detail = {**after, "before": {key: before[key] for key in after if before[key]}}
    told, unknown = await write_text(
        connection, case, actor, step.kind, why, now=now, for_operator=shown, **detail
    )
    case = await touch(connection, case, now=now, shown=shown, **changes)
    del told["kind"]
    told.pop("text_sha256", None)
    action = _ACTIONS.get(wanted.step, Action.CASE_STEP)
    more = {"step": wanted.step.value} if action is Action.CASE_STEP else {}
    audit = CaseTold(action=action, case=case, why=why, detail={**more, **told, **detail})
    return CaseChange(case=case, unknown_mentions=unknown), audit


async def step_case(
    connection: AsyncConnection, actor: Actor, case_id: int, wanted: StepRequest, *, now: datetime
) -> CaseChange:
    """Take one step of a case and audit it.

    Raises: NotFoundError, CaseError, CaseRoleError, CaseConflictError.
    """
    case = await held_case(connection, case_id)
    written, told = await take_step(connection, case, actor, wanted, now=now)
    await tell(connection, actor, [told], now=now)
    return written


async def close_case(
    connection: AsyncConnection,
    actor: Actor,
    case_id: int,
    outcome: CaseOutcome | str,
    why: str,
    now: datetime,
    *,
    for_operator: bool = True,
) -> Case:
    """Close a case with what was found, and audit it.

    Raises: NotFoundError; CaseError without a reason; CaseRoleError; CaseConflictError when it is
        closed already, or would clear a pile for lack of data.
    """
    wanted = StepRequest(
        step=StepName.CLOSE, why=why, outcome=CaseOutcome(outcome), for_operator=for_operator
    )
    return (await step_case(connection, actor, case_id, wanted, now=now)).case


async def write_comment(
    connection: AsyncConnection,
    actor: Actor,
    case_id: int,
    *,
    text: str,
    files: Sequence[CheckedFile] = (),
    for_operator: bool = False,
    now: datetime,
) -> CaseChange:
    """Write a comment, files, or both into a case and audit it; closed ones take more, too.

    Raises: NotFoundError, CaseError when there is nothing to write, CaseRoleError.
    """
    if actor.role and actor.role not in WORKERS:
        raise CaseRoleError(f"{actor.role}: comments are the office's; an operator replies")
    return await write_into(
        connection,
        await held_case(connection, case_id),
        actor,
        EntryKind.COMMENT,
        text=text,
        files=files,
        for_operator=for_operator,
        now=now,
    )


async def write_into(
    connection: AsyncConnection,
    case: Case,
    actor: Actor,
    kind: EntryKind,
    *,
    text: str,
    files: Sequence[CheckedFile],
    for_operator: bool,
    now: datetime,
    **changes: Any,
) -> CaseChange:
    """Write text and files into a held case, change it, and audit all of it as one entry.

    Raises: CaseError when there is nothing to write.
    """
    clean = checked_text(text, what="text", most=LONGEST_CASE_TEXT)
    if not clean and (not files or kind is not EntryKind.COMMENT):
        raise CaseError("there is nothing to keep: write something, or choose a file")
    told: dict[str, Any] = {}
    unknown: list[str] = []
    if clean:
        told, unknown = await write_text(
            connection, case, actor, kind, clean, now=now, for_operator=for_operator
        )
    kept = await write_files(connection, case, actor, files, now=now, for_operator=for_operator)
    case = await touch(connection, case, now=now, shown=for_operator, **changes)
    told |= {"files": kept} if kept else {}
    told |= {key: value for key, value in changes.items() if isinstance(value, str)}
    if for_operator and actor.role != Role.OPERATOR:
        told["for_operator"] = True
    await tell(
        connection, actor, [CaseTold(action=Action.CASE_ENTRY, case=case, detail=told)], now=now
    )
    return CaseChange(case=case, unknown_mentions=unknown)
