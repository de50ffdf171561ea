"""What the public complains of, and whom to tell how it ended."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Date,
    ForeignKey,
    Identity,
    Index,
    Numeric,
    Table,
    Text,
)

from chargewatch.storage.tables.base import Timestamp, metadata

OPEN_COMPLAINT = "notified_at IS NULL"
"""Something is left to do: the last of it is to tell how it ended."""

complaint = Table(
    "complaint",
    metadata,
    Column("complaint_id", BigInteger, Identity(), primary_key=True),
    # Can't be guessed, and is told to the complainer only: it opens the page of what came of it.
    Column("reference", Text, nullable=False, unique=True),
    Column("received_at", Timestamp, nullable=False),
    # As it was told; station and operator where the registry has it.
    Column("connector", Text, nullable=False),
    Column("station_id", Text),
    Column("operator_id", Text),
    Column("kind", Text, nullable=False),
    Column("text", Text, nullable=False),
    # Which charge, in the complainer's words, its time and what it cost, as far as told.
    Column("session_text", Text),
    Column("session_at", Timestamp),
    Column("bill_cny", Numeric(12, 2)),
    Column("language", Text, nullable=False),
    Column("state", Text, nullable=False),
    # Which clocks run, and the last day of each; those of an accepted one begin when it is.
    Column("clocks", Text, nullable=False),
    Column("accept_by", Date, nullable=False),
    Column("end_by", Date),
    Column("notify_by", Date),
    Column("accepted_at", Timestamp),
    Column("refused_at", Timestamp),
    Column("answered_at", Timestamp),
    Column("ended_at", Timestamp),
    Column("notified_at", Timestamp),
    # What the complainer reads: the answer, or why it was refused.
    Column("answer", Text),
    Column("case_id", BigInteger),
    CheckConstraint("kind IN ('price', 'energy', 'display', 'other')", name="kind"),
    CheckConstraint(
        "state IN ('received', 'accepted', 'refused', 'answered', 'ended')", name="state"
    ),
    Index(None, "operator_id", "complaint_id"),
    Index(None, "connector", "complaint_id"),
    Index("ix_complaint_open", "complaint_id", postgresql_where=OPEN_COMPLAINT),
)

# Apart from the complaint, so that nobody reads it by the way: deleted on request, and some time
# after the end.
complaint_contact = Table(
    "complaint_contact",
    metadata,
    Column(
        "complaint_id",
        BigInteger,
        ForeignKey("complaint.complaint_id"),
        primary_key=True,
        autoincrement=False,
    ),
    Column("contact", Text, nullable=False),
    # Of the complaint; null while it goes on.
    Column("ended_at", Timestamp),
    Index(None, "ended_at"),
)
