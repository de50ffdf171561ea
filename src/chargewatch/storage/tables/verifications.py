"""What a verification measured at each load, and what verifications made of flags."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
)
from sqlalchemy.dialects.postgresql import JSONB

from chargewatch.storage.tables.base import Timestamp, metadata

verification_point = Table(
    "verification_point",
    metadata,
    Column(
        "verification_id", BigInteger, ForeignKey("verification.verification_id"), nullable=False
    ),
    Column("place", SmallInteger, nullable=False),
    Column("load", Text, nullable=False),
    Column("current_a", Double),
    Column("power_w", Double),
    # null: not measured at this load, as where the pile did not start.
    Column("relative_error", Double),
    Column("expanded_uncertainty", Double),
    Column("coverage_factor", Double),
    # The rule's limit where one is confirmed, null where none is.
    Column("limit", Double),
    Column("basis", Text),
    Column("clause", Text),
    Column("verdict", Text, nullable=False),
    # What was measured and the budget, as JSON.
    Column("detail", JSONB),
    PrimaryKeyConstraint("verification_id", "place"),
    CheckConstraint("verdict IN ('pass', 'fail', 'inconclusive', 'no_limit')", name="verdict"),
)

# Made anew from runs and verifications by `outcomes count`. No foreign key: a claim that is merged
# into a registered connector takes its flags along at the next count.
flag_outcome = Table(
    "flag_outcome",
    metadata,
    Column("connector_id", Integer, nullable=False),
    # as_of of the first run of the flag, and of the first one without it.
    Column("flagged_at", Timestamp, nullable=False),
    Column("ended_at", Timestamp),
    Column("tier", Text, nullable=False),
    Column("verification_id", BigInteger, ForeignKey("verification.verification_id")),
    Column("outcome", Text, nullable=False),
    # The day that a run dated the change to, and how long after it the flag came.
    Column("changed_at", Timestamp),
    Column("delay_days", Double),
    PrimaryKeyConstraint("connector_id", "flagged_at"),
    Index(None, "flagged_at", "connector_id"),
    Index(None, "verification_id"),
    CheckConstraint("outcome IN ('hit', 'miss', 'undecided')", name="outcome"),
)
