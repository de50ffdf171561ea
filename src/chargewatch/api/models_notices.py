"""What the API takes and answers about notices, briefs and webhooks."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field


class NoticeRow(BaseModel):
    """Something that a user is told."""

    notice_id: int
    kind: str
    key: str = Field(description="what it is about: told once")
    path: str = Field(description="the page to look at")
    detail: dict[str, Any]
    made_at: datetime
    read_at: datetime | None


class Notices(BaseModel):
    """One page of one's own notices, the newest first."""

    notices: list[NoticeRow]
    unread: int
    next_before: int | None = Field(description="give it as `before` for the next page")


class ReadUpTo(BaseModel):
    """Notices that were read."""

    up_to: int = Field(ge=1, le=2**63 - 1, description="the newest of them")


class WishModel(BaseModel):
    """How one wishes to be told, beside the page."""

    mail: str = Field(default="", max_length=256, description="address; empty: no mail")
    language: Literal["zh", "en"] = "zh"
    mail_kinds: list[str] = Field(default_factory=list, max_length=50)


class BriefModel(BaseModel):
    """What changed since one last looked."""

    since: datetime
    newly_red: list[str] = Field(description="connectors, the dearest first")
    no_longer_red: int
    run_at: datetime | None = Field(description="as_of of the newest run")
    is_new_run: bool
    counts: dict[str, int]


class NewWebhook(BaseModel):
    """A program that is to be told."""

    label: str = Field(max_length=100, description="what it is for")
    address: str = Field(max_length=2_000, description="https://...")
    kinds: list[str] = Field(max_length=50)


class MadeWebhook(BaseModel):
    """A new webhook with its secret, shown only now."""

    webhook_id: int
    secret: str = Field(description="of Standard Webhooks: verifies `webhook-signature`")


class WebhookRow(BaseModel):
    """A webhook without its secret."""

    webhook_id: int
    label: str
    address: str
    kinds: list[str]
    made_at: datetime
    made_by: str
    ended_at: datetime | None


class Webhooks(BaseModel):
    """All webhooks."""

    webhooks: list[WebhookRow]
