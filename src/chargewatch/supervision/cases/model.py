"""A case, its states and outcomes, and what can be wrong with what is asked of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import date, datetime
from enum import StrEnum
from typing import Any

from chargewatch.errors import ChargewatchError


class CaseState(StrEnum):
    """How far a case is."""

    OPEN = "open"
    ASSIGNED = "assigned"
    INSPECTING = "inspecting"
    WAITING = "waiting_for_operator"
    CLOSED = "closed"


class CaseOutcome(StrEnum):
    """What a closed case found."""

    CONFIRMED = "confirmed"
    NOT_CONFIRMED = "not_confirmed"
    INCONCLUSIVE = "inconclusive"


class Origin(StrEnum):
    """What a case came from."""

    FLAG = "flag"
    SIGNAL = "signal"
    COMPLAINT = "complaint"
    HAND = "hand"


class EntryKind(StrEnum):
    """What an entry of a case tells."""

    OPENED = "opened"
    NAMED_AGAIN = "named_again"
    COMMENT = "comment"
    FILE = "file"
    ASSIGNED = "assigned"
    RELEASED = "released"
    INSPECTING = "inspecting"
    ASKED = "asked"
    RESUMED = "resumed"
    DEADLINE = "deadline"
    CLOSED = "closed"
    REOPENED = "reopened"
    REPLY = "reply"
    OBJECTION = "objection"


LONGEST_TITLE = 200
LONGEST_CASE_TEXT = 4_000
LONGEST_REASON = 1_000


class CaseError(ChargewatchError):
    """What was asked of a case can't be done: something that was given is missing or wrong."""


class CaseConflictError(CaseError):
    """The case, or another one, is in a state that does not let it be done."""


class CaseRoleError(CaseError):
    """Somebody else has to do it."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A case as it stands."""

    case_id: int
    number: str
    operator_id: str
    station_id: str
    connector: str | None
    subject: str
    origin: Origin
    origin_key: str
    title: str
    state: CaseState
    outcome: CaseOutcome | None
    owner: str | None
    deadline: date | None
    opened_at: datetime
    opened_by: str
    closed_at: datetime | None
    flagged_at: datetime | None
    changed_at: datetime
    shown_at: datetime | None

    @property
    def is_open(self) -> bool:
        """Whether somebody still has to do something."""
        return self.state is not CaseState.CLOSED

    @property
    def audit_subject(self) -> str:
        """What the audit trail calls it."""
        return f"case:{self.number}"


def case_of(row: Mapping[Any, Any]) -> Case:
    """Return the case of a row of `office_case`."""
    values = {field.name: row[field.name] for field in fields(Case)}
    outcome = values["outcome"]
    values["origin"] = Origin(values["origin"])
    values["state"] = CaseState(values["state"])
    values["outcome"] = None if outcome is None else CaseOutcome(outcome)
    return Case(**values)


def checked_text(text: str, *, what: str, most: int) -> str:
    """Return a text without blanks around it.

    Raises: CaseError when it is too long or holds what no table can.
    """
    clean = text.replace("\r\n", "\n").strip()
    if "\0" in clean:
        raise CaseError(f"the {what} has a NUL character in it: leave it out")
    if len(clean) > most:
        raise CaseError(f"the {what} has {len(clean)} characters: {most} are the most")
    return clean


def required_text(text: str, *, what: str, most: int) -> str:
    """Return a text without blanks around it.

    Raises: CaseError when nothing is left of it, or as `checked_text`.
    """
    clean = checked_text(text, what=what, most=most)
    if not clean:
        raise CaseError(f"write a {what}: the case keeps it, and somebody will ask for it")
    return clean
