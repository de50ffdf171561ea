"""Rejected messages: their bytes once, their reasons, and what reading them again gave."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Date,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from chargewatch.storage.tables.base import Timestamp, metadata

# One row per message of which something was rejected. Not partitioned: the digest must be unique
# over all of it, and a quota a station and day bounds its size.
quarantine = Table(
    "quarantine",
    metadata,
    Column("quarantine_id", BigInteger, Identity(), primary_key=True),
    Column("received_at", Timestamp, nullable=False),
    Column("topic", Text, nullable=False),
    Column("operator_id", Text),
    Column("station_id", Text),
    Column("seq", BigInteger),
    # The first reason; all of them, each once, in `codes`.
    Column("code", Text, nullable=False),
    Column("codes", ARRAY(Text), nullable=False),
    # [{"index", "code", "detail"}], the first 100; index null: the whole message.
    Column("errors", JSONB, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("content_type", Text),
    # How many items were rejected, listed or not.
    Column("rejected", Integer, nullable=False, server_default="1"),
    # Of topic, bytes and reasons: a re-delivered rejection is kept once.
    Column("digest", LargeBinary),
    Index(None, "received_at"),
    # Newest first, of one operator or station; rare codes.
    Index(None, "operator_id", "quarantine_id"),
    Index(None, "station_id", "quarantine_id"),
    Index(None, "codes", postgresql_using="gin"),
    Index(None, "digest", unique=True),
)

# How many rows a station has had in quarantine on a UTC day, and what came beyond the quota.
# station_id "": all stations of the operator that nobody has registered.
quarantine_day = Table(
    "quarantine_day",
    metadata,
    Column("day", Date, primary_key=True),
    Column("operator_id", Text, primary_key=True),
    Column("station_id", Text, primary_key=True),
    Column("kept", Integer, nullable=False),
    Column("more", BigInteger, nullable=False),
    Column("more_rejected", BigInteger, nullable=False),
)

# What became of a quarantined message that was read again; stored + duplicate + rejected items.
quarantine_replay = Table(
    "quarantine_replay",
    metadata,
    Column(
        "quarantine_id",
        BigInteger,
        ForeignKey("quarantine.quarantine_id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    Column("replayed_at", Timestamp, nullable=False),
    Column("version", Text, nullable=False),
    Column("stored", Integer, nullable=False),
    Column("duplicate", Integer, nullable=False),
    Column("rejected", Integer, nullable=False),
    Column("errors", JSONB, nullable=False),
)
