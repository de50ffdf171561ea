"""The audit trail: every change and log-in, each chained to the one before."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Computed, Index, LargeBinary, Table, Text

from chargewatch.storage.tables.base import Timestamp, metadata

# What was done stands in `content`, as canonical JSON (RFC 8785); the columns beside it are taken
# from it by the database, to be searched. Triggers refuse what does not follow the last entry, and
# every change of an old one.
audit_entry = Table(
    "audit_entry",
    metadata,
    Column("entry", BigInteger, primary_key=True, autoincrement=False),
    Column("content", Text, nullable=False),
    # SHA-256 of the chain value before, 32 zero bytes at first, and this content.
    Column("chain", LargeBinary, nullable=False),
    Column("at", Text, Computed("content::jsonb ->> 'at'", persisted=True)),
    Column("actor", Text, Computed("content::jsonb ->> 'actor'", persisted=True)),
    Column("action", Text, Computed("content::jsonb ->> 'action'", persisted=True)),
    Column("subject", Text, Computed("content::jsonb ->> 'subject'", persisted=True)),
    Index(None, "subject", "entry"),
    Index(None, "actor", "entry"),
)

audit_checkpoint = Table(
    "audit_checkpoint",
    metadata,
    Column("size", BigInteger, primary_key=True, autoincrement=False),
    Column("made_at", Timestamp, nullable=False),
    # The signed note, as it is published.
    Column("note", Text, nullable=False),
)
