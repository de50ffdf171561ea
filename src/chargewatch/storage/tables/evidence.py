"""Evidence files of flags, as they were taken at the end of the run that raised the flag."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
)

from chargewatch.storage.tables.base import Timestamp, metadata

# By name and not by number: a claim that is merged away leaves its evidence as it was.
evidence_file = Table(
    "evidence_file",
    metadata,
    Column("run_id", BigInteger, ForeignKey("risk_run.run_id"), nullable=False),
    Column("operator_id", Text, nullable=False),
    Column("station_id", Text, nullable=False),
    Column("connector", Text, nullable=False),
    Column("tier", Text, nullable=False),
    Column("made_at", Timestamp, nullable=False),
    # SHA-256 of the file's manifest, which tells those of all its parts; hexadecimal.
    Column("digest", Text, nullable=False),
    Column("size", Integer, nullable=False),
    Column("content", LargeBinary, nullable=False),
    PrimaryKeyConstraint("run_id", "operator_id", "station_id", "connector"),
    Index(None, "connector", "run_id"),
    Index(None, "made_at"),
)

# What somebody asked the next run to take a file of, whatever it finds.
evidence_wanted = Table(
    "evidence_wanted",
    metadata,
    Column("operator_id", Text, nullable=False),
    Column("station_id", Text, nullable=False),
    Column("connector", Text, nullable=False),
    Column("asked_at", Timestamp, nullable=False),
    Column("asked_by", Text, nullable=False),
    PrimaryKeyConstraint("operator_id", "station_id", "connector"),
)
