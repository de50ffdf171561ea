"""What users are told, how they wish to be told, and programs that are."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Identity,
    Index,
    Table,
    Text,
    UniqueConstraint,
    func,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from chargewatch.storage.tables.base import Timestamp, metadata

# One thing that one user is told; a key says what it is about, so that it is told once.
notice = Table(
    "notice",
    metadata,
    Column("notice_id", BigInteger, Identity(), primary_key=True),
    Column("username", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("key", Text, nullable=False),
    # The page to look at, and what the sentence of the kind holds.
    Column("path", Text, nullable=False),
    Column("detail", JSONB, nullable=False),
    Column("made_at", Timestamp, nullable=False, server_default=func.now()),
    Column("read_at", Timestamp),
    UniqueConstraint("username", "key"),
    Index(None, "username", "notice_id"),
    Index(None, "made_at"),
)

# How a user wishes to be told; without a row on the pages only.
notice_wish = Table(
    "notice_wish",
    metadata,
    Column("user_id", BigInteger, ForeignKey("app_user.user_id"), primary_key=True),
    Column("mail", Text, nullable=False, server_default=""),
    Column("language", Text, nullable=False, server_default="zh"),
    # Kinds of notices that come by mail.
    Column("mail_kinds", ARRAY(Text), nullable=False, server_default="{}"),
    CheckConstraint("language IN ('en', 'zh')", name="language"),
)

# When a user last said that it has seen what changed.
brief_seen = Table(
    "brief_seen",
    metadata,
    Column("user_id", BigInteger, ForeignKey("app_user.user_id"), primary_key=True),
    Column("seen_at", Timestamp, nullable=False),
)

# Programs that are told; the secret signs what they get.
webhook = Table(
    "webhook",
    metadata,
    Column("webhook_id", BigInteger, Identity(), primary_key=True),
    Column("label", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("secret", Text, nullable=False),
    Column("kinds", ARRAY(Text), nullable=False),
    Column("made_at", Timestamp, nullable=False, server_default=func.now()),
    Column("made_by", Text, nullable=False),
    Column("ended_at", Timestamp),
)

# Up to where each source of notices was looked at.
notice_mark = Table(
    "notice_mark",
    metadata,
    Column("source", Text, primary_key=True),
    Column("position", BigInteger, nullable=False),
)
