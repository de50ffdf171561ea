"""Evidence files of flags, and whose the next run is to take."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_table(
        "evidence_file",
        sa.Column("run_id", sa.BigInteger(), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in _NAMES),
        sa.Column("tier", sa.Text(), nullable=False),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", *_NAMES, name=op.f("pk_evidence_file")),
        sa.ForeignKeyConstraint(
            ["run_id"], ["risk_run.run_id"], name=op.f("fk_evidence_file_run_id_risk_run")
        ),
    )
    op.create_index(
        op.f("ix_evidence_file_connector_run_id"), "evidence_file", ["connector", "run_id"]
    )
    op.create_index(op.f("ix_evidence_file_made_at"), "evidence_file", ["made_at"])
    op.create_table(
        "evidence_wanted",
        *(sa.Column(name, sa.Text(), nullable=False) for name in _NAMES),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("asked_by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint(*_NAMES, name=op.f("pk_evidence_wanted")),
    )


_NAMES = ("operator_id", "station_id", "connector")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_table("evidence_wanted")
    op.drop_table("evidence_file")
