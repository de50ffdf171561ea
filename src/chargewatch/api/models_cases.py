"""What the API takes and answers about cases."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from chargewatch.supervision.cases.bulk import MOST_AT_ONCE
from chargewatch.supervision.cases.model import (
    LONGEST_CASE_TEXT,
    LONGEST_REASON,
    LONGEST_TITLE,
    CaseOutcome,
    CaseState,
    EntryKind,
    Origin,
)
from chargewatch.supervision.cases.steps import StepName

Name = Field(default="", max_length=64)
Day = Field(default=None, description="YYYY-MM-DD")


class Body(BaseModel):
    """What a request may hold; a key that is misspelt is told."""

    model_config = ConfigDict(extra="forbid")


class NewCase(Body):
    """A case to open: of a signal, a connector, or a station."""

    connector: str = Field(default="", max_length=256)
    station_id: str = Name
    operator_id: str = Field(
        default="", max_length=64, description="beside station_id; picks one of several claims"
    )
    signal_id: int | None = Field(default=None, ge=1)
    origin: Literal[Origin.FLAG, Origin.HAND] = Field(
        default=Origin.HAND, description="of a connector; a signal's is `signal`"
    )
    title: str = Field(default="", max_length=LONGEST_TITLE)
    deadline: date | None = Day


class PileKeyBody(Body):
    """A connector; station and operator pick one of several that claim its name."""

    connector: str = Field(max_length=256)
    station_id: str = Name
    operator_id: str = Name


class CaseStep(Body):
    """A step to take."""

    step: StepName
    why: str = Field(
        default="", max_length=LONGEST_REASON, description="the reason; of `ask`, the question"
    )
    owner: str = Field(default="", max_length=64, description="of `assign`")
    deadline: date | None = Day
    outcome: CaseOutcome | None = Field(default=None, description="of `close`")
    for_operator: bool = Field(default=True, description="of `close`: the operator is told")


class CaseText(Body):
    """What somebody writes into a case; `@name` mentions a user."""

    text: str = Field(max_length=LONGEST_CASE_TEXT)


class CaseComment(CaseText):
    """A comment of the office."""

    for_operator: bool = Field(default=False, description="the operator reads it, too")


class CaseBulk(Body):
    """One action for many: `open` for piles and signals, `assign` or `deadline` for cases."""

    action: Literal["open", "assign", "deadline"]
    numbers: list[str] = Field(default_factory=list, max_length=MOST_AT_ONCE)
    piles: list[PileKeyBody] = Field(default_factory=list, max_length=MOST_AT_ONCE)
    signals: list[int] = Field(default_factory=list, max_length=MOST_AT_ONCE)
    owner: str = Name
    why: str = Field(default="", max_length=LONGEST_REASON)
    deadline: date | None = Day


class CaseRow(BaseModel):
    """A case; an operator's user is not told `owner`, `opened_by` and `origin_key`."""

    number: str = Field(description="what people call it")
    operator_id: str
    station_id: str
    connector: str | None
    subject: str = Field(description="`connector:`, `station:`, `meter:` or `operator:` and a name")
    origin: Origin
    origin_key: str | None = Field(description="which signal or complaint")
    title: str
    state: CaseState
    outcome: CaseOutcome | None
    owner: str | None
    deadline: date | None
    overdue: bool
    opened_at: datetime
    opened_by: str | None
    closed_at: datetime | None
    flagged_at: datetime | None = Field(
        description="since when the pile had been flagged when the case was opened"
    )
    changed_at: datetime


class CaseCounts(BaseModel):
    """How many cases the filter leaves, whatever state it wants."""

    open: int
    assigned: int
    inspecting: int
    waiting_for_operator: int
    closed: int
    overdue: int


class Cases(BaseModel):
    """One page of cases; `after` of the next page is `next_after`."""

    cases: list[CaseRow]
    counts: CaseCounts
    next_after: str | None


class CaseFile(BaseModel):
    """A file of a case: `GET /api/v1/cases/{number}/files/{file_id}` answers with it."""

    file_id: int
    name: str
    media_type: str
    size: int = Field(description="bytes")
    sha256: str


class CaseEntry(BaseModel):
    """What was done or said."""

    entry_id: int
    at: datetime
    author: str | None = Field(description="null for an operator's user: somebody of the office")
    kind: EntryKind
    text: str
    for_operator: bool
    file: CaseFile | None
    detail: dict[str, Any] = Field(description="what changed; `mentions`: who was mentioned")


class CaseDetail(BaseModel):
    """A case with its entries, and what the asker can do with it now."""

    case: CaseRow
    entries: list[CaseEntry]
    possible_steps: list[StepName]


class CaseWritten(BaseModel):
    """A case after a change."""

    case: CaseRow
    already_open: bool = Field(description="it was open before, and was added to")
    unknown_mentions: list[str] = Field(description="names after @ that nobody has who may read it")


class CaseRefusal(BaseModel):
    """A case that was not changed, and why."""

    number: str
    message: str


class CaseBulkDone(BaseModel):
    """What became of each."""

    cases: list[CaseRow]
    refused: list[CaseRefusal]
