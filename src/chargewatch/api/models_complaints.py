"""What the API takes and answers about complaints."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Any, Literal

from pydantic import BaseModel, Field

from chargewatch.supervision.complaints.filing import MOST_TEXT

ComplaintState = Literal["received", "accepted", "answered", "ended", "refused"]
ComplaintKind = Literal["price", "energy", "display", "other"]


class ComplaintRow(BaseModel):
    """A complaint without its text."""

    complaint_id: int
    reference: str | None = Field(description="only for who may answer complaints")
    received_at: datetime
    connector: str
    station_id: str | None
    operator_id: str | None
    kind: ComplaintKind
    state: ComplaintState
    overdue: bool
    accept_by: date
    end_by: date | None
    notify_by: date | None
    accepted_at: datetime | None
    refused_at: datetime | None
    answered_at: datetime | None
    ended_at: datetime | None
    notified_at: datetime | None
    case_id: int | None
    clocks: str = Field(description="name of the rule whose clocks run")


class Complaints(BaseModel):
    """One page of complaints, the newest first; `before` of the next page is `next_before`."""

    complaints: list[ComplaintRow]
    next_before: int | None


class NearSession(BaseModel):
    """A session of the pile near the charge that is complained of."""

    session: str
    started_at: datetime
    ended_at: datetime
    start_wh: float | None
    stop_wh: float | None
    billed_wh: float | None
    total_fee: Decimal | None
    currency: str | None
    fits: Literal["", "session", "bill"] = Field(
        description="what the complainer told of it: its name, or what was paid"
    )


class ComplaintDetail(ComplaintRow):
    """A complaint with its text, and what was measured near it.

    Who may not answer complaints reads the words without addresses and long numbers.
    """

    text: str
    session_text: str | None
    session_at: datetime | None
    bill_cny: Decimal | None
    language: str
    answer: str | None
    case_number: str | None = Field(description="of the case that was opened; not for operators")
    contact: str | None = Field(description="only for who may answer complaints")
    near_since: datetime
    near_until: datetime
    sessions: list[NearSession]
    signals: list[dict[str, Any]]


class Reason(BaseModel):
    """Why a complaint is refused; its complainer reads it."""

    reason: str = Field(max_length=2 * MOST_TEXT)


class OpenedCase(BaseModel):
    """The case that a complaint led to."""

    number: str


class AnswerText(BaseModel):
    """The answer to a complaint; its complainer reads it."""

    text: str = Field(max_length=2 * MOST_TEXT)
