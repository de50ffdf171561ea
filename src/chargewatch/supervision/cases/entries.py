"""Entries of a case: what was done and said, by whom, who is mentioned, and the files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.storage.office import cases as rows
from chargewatch.supervision.audit import Action, Actor, record
from chargewatch.supervision.cases.mentions import mentioned_names
from chargewatch.supervision.cases.model import Case, EntryKind, case_of
from chargewatch.supervision.files import CheckedFile, keep_checked
from chargewatch.supervision.permissions import Role


@dataclass(frozen=True, kw_only=True)
class CaseTold:
    """What the audit trail has to tell of a case, written after all changes of a transaction."""

    action: Action
    case: Case
    why: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)


async def tell(
    connection: AsyncConnection, actor: Actor, told: Iterable[CaseTold], *, now: datetime
) -> None:
    """Write the audit entries of a transaction, as its last statements.

    They take the last lock of all, so nothing of a case may be changed after them.
    """
    for one in told:
        await record(
            connection,
            actor,
            one.action,
            one.case.audit_subject,
            at=now,
            why=one.why,
            **one.detail,
        )


@dataclass(frozen=True, kw_only=True)
class Mentions:
    """Who is told of an entry, and which names after @ are nobody who may see it."""

    users: list[str]
    unknown: list[str]


async def find_mentions(
    connection: AsyncConnection, case: Case, text: str, *, actor: Actor, for_operator: bool
) -> Mentions:
    """Return who is mentioned in an entry and will be able to read it.

    An operator's user is told of what is for the operator, and only of its own cases. What an
    operator's user writes mentions its own colleagues only: who works at the office it can't find
    out by trying names.
    """
    names = mentioned_names(text)
    found = {}
    for row in await rows.users_named(connection, names):
        is_operators = row["role"] == Role.OPERATOR
        if is_operators:
            can_read = for_operator and row["operator_id"] == case.operator_id
        else:
            can_read = actor.role != Role.OPERATOR
        if can_read:
            found[row["username"]] = row
    users = [name for name in names if name in found]
    return Mentions(users=users, unknown=[name for name in names if name not in found])


def text_hash(text: str) -> str:
    """Return the SHA-256 of a text, which the audit trail keeps in its place."""
    return hashlib.sha256(text.encode()).hexdigest()


async def write_entry(
    connection: AsyncConnection,
    case: Case,
    actor: Actor,
    kind: EntryKind,
    *,
    now: datetime,
    text: str = "",
    for_operator: bool = False,
    file_id: int | None = None,
    **detail: Any,
) -> int:
    """Add an entry to a case and return its entry_id; the caller changes the case itself."""
    return await rows.add_entry(
        connection,
        {
            "case_id": case.case_id,
            "at": now,
            "author": actor.name,
            "kind": kind.value,
            "text": text,
            "for_operator": for_operator,
            "file_id": file_id,
            "detail": {key: value for key, value in detail.items() if value not in (None, [], "")},
        },
    )


async def write_text(
    connection: AsyncConnection,
    case: Case,
    actor: Actor,
    kind: EntryKind,
    text: str,
    *,
    now: datetime,
    for_operator: bool,
    **detail: Any,
) -> tuple[dict[str, Any], list[str]]:
    """Add an entry with what somebody wrote; return its audit detail and the unknown mentions."""
    mentions = await find_mentions(connection, case, text, actor=actor, for_operator=for_operator)
    entry_id = await write_entry(
        connection,
        case,
        actor,
        kind,
        now=now,
        text=text,
        for_operator=for_operator,
        mentions=mentions.users,
        **detail,
    )
    told: dict[str, Any] = {"entry_id": entry_id, "kind": kind.value}
    told |= {"text_sha256": text_hash(text)} if text else {}
    told |= {"for_operator": True} if for_operator else {}
    return told, mentions.unknown


async def write_files(
    connection: AsyncConnection,
    case: Case,
    actor: Actor,
    files: Iterable[CheckedFile],
    *,
    now: datetime,
    for_operator: bool,
) -> list[dict[str, Any]]:
    """Keep files with an entry each; return what the audit trail tells of them."""
    told = []
    for checked in files:
        file_id = await keep_checked(connection, actor, checked)
        await write_entry(
            connection,
            case,
            actor,
            EntryKind.FILE,
            now=now,
            for_operator=for_operator,
            file_id=file_id,
        )
        told.append({"file_id": file_id, "sha256": checked.sha256})
    return told


async def touch(
    connection: AsyncConnection,
    case: Case,
    *,
    now: datetime,
    shown: bool = False,
    **changes: Any,
) -> Case:
    """Change a case, note when, and from when on the operator sees it; return it as it is now."""
    values: dict[str, Any] = {"changed_at": now, **changes}
    if shown and case.shown_at is None:
        values["shown_at"] = now
    return case_of(await rows.change_case(connection, case.case_id, values))
