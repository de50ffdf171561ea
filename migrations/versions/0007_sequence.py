"""Sequence numbers by first, last and gaps instead of a set; restarts of a gateway's count."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, INT8MULTIRANGE

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

STREAM = (
    ("first_seq", sa.BigInteger(), None),
    ("last_seq", sa.BigInteger(), None),
    ("newest_sent_at", sa.DateTime(timezone=True), None),
    ("count_since", sa.DateTime(timezone=True), None),
    ("restarts", sa.Integer(), "0"),
    ("restarted_at", ARRAY(sa.DateTime(timezone=True)), "{}"),
    ("open_gaps", sa.Integer(), "0"),
    ("untracked_gaps", sa.BigInteger(), "0"),
    ("untracked_missing", sa.Numeric(), "0"),
    ("untracked_at", sa.DateTime(timezone=True), None),
)
GAP = (
    ("count_no", sa.Integer(), "0"),
    ("from_at", sa.DateTime(timezone=True), None),
    ("to_at", sa.DateTime(timezone=True), None),
    ("implausible", sa.Boolean(), "false"),
)


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    for table, columns in (("ledger_stream", STREAM), ("ledger_gap", GAP)):
        for name, kind, default in columns:
            op.add_column(
                table,
                sa.Column(name, kind, nullable=default is None, server_default=default),
            )
    op.execute(
        "UPDATE ledger_stream s SET first_seq = lower(s.seen), last_seq = upper(s.seen) - 1, "
        "newest_sent_at = CASE WHEN last_sent_at <= last_received_at + interval '1 day' "
        "THEN last_sent_at ELSE last_received_at END, count_since = first_received_at, "
        "open_gaps = (SELECT count(*) FROM ledger_gap g "
        "WHERE g.stream_id = s.stream_id AND g.closed_at IS NULL) WHERE NOT isempty(s.seen)"
    )
    # Of older gaps it isn't known any more when the messages around them were sent.
    op.execute("UPDATE ledger_gap SET from_at = found_at, to_at = found_at")
    op.drop_column("ledger_stream", "seen")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column(
        "ledger_stream",
        sa.Column("seen", INT8MULTIRANGE, nullable=False, server_default=sa.text("'{}'")),
    )
    op.execute(
        "UPDATE ledger_stream s SET seen = int8multirange(int8range(first_seq, last_seq, '[]')) "
        "- coalesce((SELECT range_agg(int8range(g.first_seq, g.last_seq, '[]')) "
        "FROM ledger_gap g WHERE g.stream_id = s.stream_id AND g.closed_at IS NULL "
        "AND g.count_no = s.restarts), '{}') WHERE first_seq IS NOT NULL"
    )
    for table, columns in (("ledger_gap", GAP), ("ledger_stream", STREAM)):
        for name, _, _ in columns:
            op.drop_column(table, name)
