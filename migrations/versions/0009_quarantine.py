"""Quarantine by message instead of by item; a quota a station and day; what was read again.

The old rows are rewritten once, each as a message with one reason: its bytes are those of the item.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

Timestamp = postgresql.TIMESTAMP(timezone=True)

# One ALTER TABLE is one pass over the table; USING sees the row as it was.
BY_MESSAGE = """
ALTER TABLE quarantine
  ALTER COLUMN item_index TYPE text[] USING ARRAY[code],
  ALTER COLUMN item_index SET NOT NULL,
  ALTER COLUMN detail TYPE jsonb USING jsonb_build_array(
    jsonb_build_object('index', item_index, 'code', code, 'detail', detail)),
  ADD COLUMN rejected integer NOT NULL DEFAULT 1,
  ADD COLUMN digest bytea
"""
BY_ITEM = """
ALTER TABLE quarantine
  DROP COLUMN digest,
  DROP COLUMN rejected,
  ALTER COLUMN detail TYPE text USING coalesce(detail->0->>'detail', ''),
  ALTER COLUMN item_index DROP NOT NULL,
  ALTER COLUMN item_index TYPE integer USING (detail->0->>'index')::integer
"""


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_index(op.f("ix_quarantine_code_quarantine_id"), "quarantine")
    op.execute(BY_MESSAGE)
    op.alter_column("quarantine", "item_index", new_column_name="codes")
    op.alter_column("quarantine", "detail", new_column_name="errors")
    op.create_index(op.f("ix_quarantine_codes"), "quarantine", ["codes"], postgresql_using="gin")
    op.create_index(op.f("ix_quarantine_digest"), "quarantine", ["digest"], unique=True)
    op.create_table(
        "quarantine_day",
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("operator_id", sa.Text(), nullable=False),
        sa.Column("station_id", sa.Text(), nullable=False),
        sa.Column("kept", sa.Integer(), nullable=False),
        sa.Column("more", sa.BigInteger(), nullable=False),
        sa.Column("more_rejected", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("day", "operator_id", "station_id", name=op.f("pk_quarantine_day")),
    )
    op.create_table(
        "quarantine_replay",
        sa.Column("quarantine_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("replayed_at", Timestamp, nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("stored", sa.Integer(), nullable=False),
        sa.Column("duplicate", sa.Integer(), nullable=False),
        sa.Column("rejected", sa.Integer(), nullable=False),
        sa.Column("errors", postgresql.JSONB(), nullable=False),
        sa.ForeignKeyConstraint(
            ["quarantine_id"],
            ["quarantine.quarantine_id"],
            name=op.f("fk_quarantine_replay_quarantine_id_quarantine"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("quarantine_id", name=op.f("pk_quarantine_replay")),
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_table("quarantine_replay")
    op.drop_table("quarantine_day")
    op.drop_index(op.f("ix_quarantine_digest"), "quarantine")
    op.drop_index(op.f("ix_quarantine_codes"), "quarantine")
    op.alter_column("quarantine", "codes", new_column_name="item_index")
    op.alter_column("quarantine", "errors", new_column_name="detail")
    op.execute(BY_ITEM)
    op.create_index(
        op.f("ix_quarantine_code_quarantine_id"), "quarantine", ["code", "quarantine_id"]
    )
