"""What became of every message: received = stored + duplicate + rejected, per station and topic."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Date,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    Numeric,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY

from chargewatch.storage.tables.base import Timestamp, metadata

# One row per station and topic kind (wire.kinds).
ledger_stream = Table(
    "ledger_stream",
    metadata,
    Column("stream_id", Integer, Identity(), primary_key=True),
    Column("operator_id", Text, nullable=False),
    Column("station_id", Text, nullable=False),
    Column("topic", Text, nullable=False),
    Column("messages", BigInteger, nullable=False, server_default="0"),
    Column("received", BigInteger, nullable=False, server_default="0"),
    Column("stored", BigInteger, nullable=False, server_default="0"),
    Column("duplicate", BigInteger, nullable=False, server_default="0"),
    Column("rejected", BigInteger, nullable=False, server_default="0"),
    Column("unknown_keys", BigInteger, nullable=False, server_default="0"),
    # Energies told with more than three decimals.
    Column("rounded", BigInteger, nullable=False, server_default="0"),
    # Lowest and highest seq of the present count; what is missing between them is in ledger_gap.
    Column("first_seq", BigInteger),
    Column("last_seq", BigInteger),
    # Newest sent_at of the present count, and when it began: storage.sequences.
    Column("newest_sent_at", Timestamp),
    Column("count_since", Timestamp),
    # How often the gateway began to count at 1 again, and the newest times of it.
    Column("restarts", Integer, nullable=False, server_default="0"),
    Column("restarted_at", ARRAY(Timestamp), nullable=False, server_default="{}"),
    Column("open_gaps", Integer, nullable=False, server_default="0"),
    # Gaps that are only summed up, because there were too many; jumps add nothing to `missing`.
    Column("untracked_gaps", BigInteger, nullable=False, server_default="0"),
    Column("untracked_missing", Numeric, nullable=False, server_default="0"),
    Column("untracked_at", Timestamp),
    Column("first_received_at", Timestamp),
    Column("last_received_at", Timestamp),
    Column("last_sent_at", Timestamp),
    UniqueConstraint("operator_id", "station_id", "topic"),
)

# One row per message that arrived (hypertable by received_at; no key: a re-sent message has two).
message_ledger = Table(
    "message_ledger",
    metadata,
    Column("received_at", Timestamp, nullable=False),
    Column("stream_id", Integer, nullable=False),
    # 0 when the message could not be read; likewise sent_at is then received_at.
    Column("seq", BigInteger, nullable=False),
    Column("sent_at", Timestamp, nullable=False),
    Column("stored", Integer, nullable=False),
    Column("duplicate", Integer, nullable=False),
    Column("rejected", Integer, nullable=False),
    Index(None, "stream_id", "received_at"),
)

# What retention made of single messages: their sums a stream and UTC day.
ledger_day = Table(
    "ledger_day",
    metadata,
    Column("stream_id", Integer, primary_key=True, autoincrement=False),
    Column("day", Date, primary_key=True),
    Column("messages", BigInteger, nullable=False),
    Column("stored", BigInteger, nullable=False),
    Column("duplicate", BigInteger, nullable=False),
    Column("rejected", BigInteger, nullable=False),
)

ledger_gap = Table(
    "ledger_gap",
    metadata,
    Column("gap_id", BigInteger, Identity(), primary_key=True),
    Column("stream_id", Integer, ForeignKey("ledger_stream.stream_id"), nullable=False),
    Column("first_seq", BigInteger, nullable=False),
    Column("last_seq", BigInteger, nullable=False),
    Column("found_at", Timestamp, nullable=False),
    Column("closed_at", Timestamp),
    # Which count of the gateway: ledger_stream.restarts at its time.
    Column("count_no", Integer, nullable=False, server_default="0"),
    # When the messages around it were sent.
    Column("from_at", Timestamp),
    Column("to_at", Timestamp),
    # A jump that no gateway can have sent messages for in that time.
    Column("implausible", Boolean, nullable=False, server_default="false"),
    Index(None, "stream_id", "first_seq"),
    Index("ix_ledger_gap_open", "stream_id", postgresql_where=text("closed_at IS NULL")),
)

station_status = Table(
    "station_status",
    metadata,
    Column("operator_id", Text, primary_key=True),
    Column("station_id", Text, primary_key=True),
    Column("online", Boolean, nullable=False),
    Column("received_at", Timestamp, nullable=False),
    Column("sent_at", Timestamp),
    Column("clock_offset_ms", Double),
    Column("backlog", BigInteger),
    Column("firmware", Text),
)

# Sessions that ingest has at the broker: what an old number of shards left there must be fetched.
# A client id is a secret: who knows it can take the session's messages.
ingest_session = Table(
    "ingest_session",
    metadata,
    Column("client_id", Text, primary_key=True),
    # CHARGEWATCH_MQTT_CLIENT_ID, without the shard.
    Column("base", Text, nullable=False),
    Column("used_at", Timestamp, nullable=False),
    # NULL: a session of version 0.1.0, whose client id was the setting.
    Column("shard_index", Integer),
    Column("shard_count", Integer),
    Column("subscribed_at", Timestamp),
    Column("retired", Boolean, nullable=False, server_default="false"),
)
