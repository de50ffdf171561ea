"""What the API's answers about ingest look like: receipts, ledger, quarantine."""

from __future__ import annotations

from datetime import date, datetime

from pydantic import BaseModel, Field

from chargewatch.api.models_stations import Gap


class Stream(BaseModel):
    """What became of the messages of one station and topic."""

    operator_id: str
    station_id: str
    topic: str
    messages: int
    received: int
    stored: int
    duplicate: int
    rejected: int
    unknown_keys: int
    rounded: int
    balanced: bool
    newest_seq: int | None
    open_gaps: int
    missing: int
    jumps: int
    untracked_gaps: int
    untracked_missing: int
    restarts: int
    last_restart_at: datetime | None
    first_received_at: datetime | None
    last_received_at: datetime | None
    last_sent_at: datetime | None


class TopicTotal(BaseModel):
    """The ledger of all stations, summed by topic."""

    topic: str
    streams: int
    messages: int
    received: int
    stored: int
    duplicate: int
    rejected: int
    unknown_keys: int
    rounded: int
    last_received_at: datetime | None
    unbalanced: int = Field(description="streams that don't balance")


class OpenGap(Gap):
    """A hole in the sequence numbers of a station's topic."""

    operator_id: str
    station_id: str


class Ledger(BaseModel):
    """The message ledger: received = stored + duplicate + rejected, per station and topic."""

    balanced: bool
    totals: list[TopicTotal]
    streams: list[Stream]
    open_gaps: list[OpenGap]
    next_after: str | None


class ReceiptError(BaseModel):
    """Why one item of a message was rejected."""

    index: int | None = Field(description="null: the whole message")
    code: str
    detail: str


class Receipt(BaseModel):
    """What became of a message, as in the telemetry contract."""

    topic: str
    seq: int | None
    stored: int
    duplicate: int
    rejected: int
    errors: list[ReceiptError]


class CodeCount(BaseModel):
    """How many of the newest 10,000 rejected messages have a code."""

    code: str
    messages: int


class Quarantined(BaseModel):
    """A rejected message with its reasons and how its bytes begin."""

    quarantine_id: int
    received_at: datetime
    topic: str
    operator_id: str | None
    station_id: str | None
    seq: int | None
    code: str
    codes: list[str]
    rejected: int = Field(description="items rejected, listed in errors or not")
    errors: list[ReceiptError] = Field(description="at most 100")
    content_type: str | None
    payload_bytes: int
    preview: str
    replayed_at: datetime | None
    replay_stored: int | None
    replay_duplicate: int | None
    replay_rejected: int | None


class BeyondQuota(BaseModel):
    """A station and day with more rejected messages than are kept."""

    day: date
    operator_id: str
    station_id: str = Field(description="empty: all unregistered stations of the operator")
    kept: int
    more: int = Field(description="messages that were only counted")
    more_rejected: int


class Quarantine(BaseModel):
    """Rejected messages, newest first; `before` of the next page is the last `quarantine_id`."""

    codes: list[CodeCount]
    waiting: int = Field(description="messages that the platform failed on, not read again yet")
    items: list[Quarantined]
    beyond_quota: list[BeyondQuota]
    next_before: int | None
