"""Inspection draws, what was thrown for them, and the inspections that came of draws and cases."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Date,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    Numeric,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from chargewatch.storage.tables.base import Timestamp, metadata

inspection_draw = Table(
    "inspection_draw",
    metadata,
    Column("draw_id", Text, primary_key=True),
    # frozen, published, drawn, done; withdrawn before anybody threw.
    Column("state", Text, nullable=False),
    # The frozen list as it is hashed, and what is asked of it often.
    Column("list_text", Text, nullable=False),
    Column("list_sha256", Text, nullable=False),
    Column("piles", Integer, nullable=False),
    # Piles in the list by operator: the lots of risk-limiting inspection.
    Column("lots", JSONB, nullable=False),
    # How many were left out, by reason.
    Column("excluded", JSONB, nullable=False),
    # What the list was narrowed to, and the sampling plan of that lot; null without.
    Column("lot", JSONB),
    Column("plan", JSONB),
    Column("weights_rule", Text, nullable=False),
    Column("size", Integer, nullable=False),
    Column("uniform_share", Numeric, nullable=False),
    Column("crew", Integer, nullable=False),
    Column("due_days", Integer, nullable=False),
    Column("frozen_at", Timestamp, nullable=False),
    Column("made_by", Text, nullable=False),
    # The public randomness that was announced with the hash, "" for none.
    Column("beacon_source", Text, nullable=False, server_default=""),
    Column("published_at", Timestamp),
    # RFC 3161, DER, over the list's text.
    Column("timestamp_token", LargeBinary),
    Column("drawn_at", Timestamp),
    # The draw's file as it is published.
    Column("bundle", Text),
    # The day from which list, seed and piles are public at the latest; and when they were opened.
    Column("opens_on", Date),
    Column("opened_at", Timestamp),
    Column("withdrawn_at", Timestamp),
    Column("withdrawn_why", Text, nullable=False, server_default=""),
    CheckConstraint("state IN ('frozen', 'published', 'drawn', 'done', 'withdrawn')", name="state"),
    Index(None, "frozen_at"),
)

# Nobody is shown the digits of one witness before those of the other are in.
draw_throw = Table(
    "draw_throw",
    metadata,
    Column("draw_id", Text, ForeignKey("inspection_draw.draw_id"), primary_key=True),
    Column("witness", Text, primary_key=True),
    Column("entered_by", Text, nullable=False),
    Column("digits", Text, nullable=False),
    Column("at", Timestamp, nullable=False),
    UniqueConstraint("draw_id", "entered_by"),
)

# Said for one draw, between its freezing and its publication, beside those of the registry.
draw_recusal = Table(
    "draw_recusal",
    metadata,
    Column("draw_id", Text, ForeignKey("inspection_draw.draw_id"), primary_key=True),
    Column("inspector", Text, primary_key=True),
    Column("operator_id", Text, primary_key=True),
    Column("why", Text, nullable=False),
    Column("at", Timestamp, nullable=False),
    Column("entered_by", Text, nullable=False),
)

inspection = Table(
    "inspection",
    metadata,
    Column("inspection_id", BigInteger, Identity(), primary_key=True),
    Column("draw_id", Text, ForeignKey("inspection_draw.draw_id")),
    Column("case_id", BigInteger),
    # By name, as the draw's list has it: a claim's number may go when it is registered.
    Column("connector", Text, nullable=False),
    Column("station_id", Text, nullable=False),
    Column("operator_id", Text, nullable=False),
    # The first of the crew, and all of it.
    Column("inspector", Text, nullable=False),
    Column("crew", ARRAY(Text), nullable=False),
    Column("part", Text, nullable=False),
    Column("rank", Integer),
    # Of the part that it came by: the uniform ones are counted in the order of their tickets.
    Column("ticket", Text),
    Column("planned_at", Timestamp, nullable=False),
    Column("due_on", Date, nullable=False),
    Column("state", Text, nullable=False),
    Column("verification_id", BigInteger, ForeignKey("verification.verification_id")),
    Column("result", Text),
    Column("done_on", Date),
    Column("cancelled_why", Text, nullable=False, server_default=""),
    CheckConstraint("part IN ('uniform', 'weighted', 'case')", name="part"),
    CheckConstraint("state IN ('planned', 'done', 'cancelled')", name="state"),
    CheckConstraint("result IN ('pass', 'fail')", name="result"),
    CheckConstraint("(state = 'done') = (result IS NOT NULL)", name="done_with_result"),
    Index("uq_inspection_rank", "draw_id", "rank", unique=True),
    Index(None, "connector"),
    Index(None, "case_id"),
    Index(None, "operator_id", "inspection_id"),
    Index(None, "verification_id"),
    # What is to be done, by when: few among all that were.
    Index(
        "ix_inspection_planned",
        *("due_on", "inspection_id"),
        postgresql_where="state = 'planned'",
    ),
)
