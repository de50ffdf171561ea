"""Sums of the ledger a stream and day; when a session's name was last heard."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def _chunks_of(interval: str) -> None:
    has_timescale = (
        op.get_bind()
        .exec_driver_sql("SELECT count(*) FROM pg_extension WHERE extname = 'timescaledb'")
        .scalar_one()
    )
    if has_timescale:
        op.execute(f"SELECT set_chunk_time_interval('message_ledger', INTERVAL '{interval}')")


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_table(
        "ledger_day",
        sa.Column("stream_id", sa.Integer(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("messages", sa.BigInteger(), nullable=False),
        sa.Column("stored", sa.BigInteger(), nullable=False),
        sa.Column("duplicate", sa.BigInteger(), nullable=False),
        sa.Column("rejected", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("stream_id", "day", name=op.f("pk_ledger_day")),
    )
    # Existing names count as heard on the day of this migration.
    op.add_column(
        "session_name",
        sa.Column("seen_on", sa.Date(), nullable=False, server_default=sa.text("current_date")),
    )
    op.create_index(op.f("ix_session_name_seen_on"), "session_name", ["seen_on"])
    _chunks_of("1 day")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    _chunks_of("7 days")
    op.drop_index(op.f("ix_session_name_seen_on"), "session_name")
    op.drop_column("session_name", "seen_on")
    op.drop_table("ledger_day")
