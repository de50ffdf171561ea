"""The index of piles, which `chargewatch migrate` fills afterwards; indexes of long lists."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_table(
        "pile_index",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_pile_index")),
    )
    # Compressing would take longer than it saves: docs/decisions/storage-pile-index.md.
    op.execute("ALTER TABLE pile_index ALTER COLUMN content SET STORAGE EXTERNAL")
    op.create_index(
        "ix_signal_open",
        "signal",
        ["signal_id"],
        unique=False,
        postgresql_where=sa.text("closed_run IS NULL"),
    )
    for column in ("operator_id", "code", "severity"):
        op.create_index(op.f(f"ix_signal_{column}_signal_id"), "signal", [column, "signal_id"])
    for column in ("operator_id", "station_id", "code"):
        name = op.f(f"ix_quarantine_{column}_quarantine_id")
        op.create_index(name, "quarantine", [column, "quarantine_id"])


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    for column in ("operator_id", "station_id", "code"):
        op.drop_index(op.f(f"ix_quarantine_{column}_quarantine_id"), "quarantine")
    for column in ("operator_id", "code", "severity"):
        op.drop_index(op.f(f"ix_signal_{column}_signal_id"), "signal")
    op.drop_index("ix_signal_open", "signal")
    op.drop_table("pile_index")
