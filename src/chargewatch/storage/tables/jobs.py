"""Work that nobody waits for."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Identity,
    Index,
    Integer,
    Table,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from chargewatch.storage.tables.base import Timestamp, metadata

job = Table(
    "job",
    metadata,
    Column("job_id", BigInteger, Identity(), primary_key=True),
    Column("kind", Text, nullable=False),
    Column("arguments", JSONB, nullable=False),
    # Who wants it, as the audit trail names people.
    Column("wanted_by", Text, nullable=False),
    # One job a key, for good: what a timer or a double click asks for twice is done once.
    Column("key", Text, unique=True),
    Column("state", Text, nullable=False, server_default="waiting"),
    Column("made_at", Timestamp, nullable=False, server_default=func.now()),
    Column("due_at", Timestamp, nullable=False, server_default=func.now()),
    Column("tries", Integer, nullable=False, server_default="0"),
    # While it runs: by whom, and when that worker last said so.
    Column("worker", Text),
    Column("alive_at", Timestamp),
    Column("progress", Text, nullable=False, server_default=""),
    Column("finished_at", Timestamp),
    Column("result", JSONB),
    Column("error", Text, nullable=False, server_default=""),
    CheckConstraint("state IN ('waiting', 'running', 'done', 'failed')", name="state"),
    Index("ix_job_due", "due_at", "job_id", postgresql_where=text("state = 'waiting'")),
    Index("ix_job_running", "alive_at", postgresql_where=text("state = 'running'")),
    Index(None, "state", "job_id"),
)
