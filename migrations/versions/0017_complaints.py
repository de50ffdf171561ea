"""Complaints of the public, and whom to tell how they ended."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

OPEN = sa.text("notified_at IS NULL")


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_table(
        "complaint",
        sa.Column("complaint_id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("reference", sa.Text(), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("connector", sa.Text(), nullable=False),
        sa.Column("station_id", sa.Text()),
        sa.Column("operator_id", sa.Text()),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("session_text", sa.Text()),
        sa.Column("session_at", sa.DateTime(timezone=True)),
        sa.Column("bill_cny", sa.Numeric(12, 2)),
        sa.Column("language", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("clocks", sa.Text(), nullable=False),
        sa.Column("accept_by", sa.Date(), nullable=False),
        sa.Column("end_by", sa.Date()),
        sa.Column("notify_by", sa.Date()),
        sa.Column("accepted_at", sa.DateTime(timezone=True)),
        sa.Column("refused_at", sa.DateTime(timezone=True)),
        sa.Column("answered_at", sa.DateTime(timezone=True)),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.Column("notified_at", sa.DateTime(timezone=True)),
        sa.Column("answer", sa.Text()),
        sa.Column("case_id", sa.BigInteger()),
        sa.CheckConstraint(
            "kind IN ('price', 'energy', 'display', 'other')", name=op.f("ck_complaint_kind")
        ),
        sa.CheckConstraint(
            "state IN ('received', 'accepted', 'refused', 'answered', 'ended')",
            name=op.f("ck_complaint_state"),
        ),
        sa.PrimaryKeyConstraint("complaint_id", name=op.f("pk_complaint")),
        sa.UniqueConstraint("reference", name=op.f("uq_complaint_reference")),
    )
    op.create_index(
        op.f("ix_complaint_operator_id_complaint_id"), "complaint", ["operator_id", "complaint_id"]
    )
    op.create_index(
        op.f("ix_complaint_connector_complaint_id"), "complaint", ["connector", "complaint_id"]
    )
    op.create_index("ix_complaint_open", "complaint", ["complaint_id"], postgresql_where=OPEN)
    op.create_table(
        "complaint_contact",
        sa.Column("complaint_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("contact", sa.Text(), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.ForeignKeyConstraint(
            ["complaint_id"],
            ["complaint.complaint_id"],
            name=op.f("fk_complaint_contact_complaint_id_complaint"),
        ),
        sa.PrimaryKeyConstraint("complaint_id", name=op.f("pk_complaint_contact")),
    )
    op.create_index(op.f("ix_complaint_contact_ended_at"), "complaint_contact", ["ended_at"])


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_table("complaint_contact")
    op.drop_table("complaint")
