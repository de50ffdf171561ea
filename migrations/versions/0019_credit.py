"""Credit grades, self-commitments, and what operators sent a day."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def _time(name: str) -> sa.Column:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=False)


def _grade(table: str) -> tuple[sa.Column | sa.CheckConstraint, ...]:
    return (
        sa.Column("grade", sa.Text()),
        sa.Column("score", sa.Numeric()),
        sa.Column("worst", sa.Text()),
        sa.Column("arithmetic", JSONB(), nullable=False),
        sa.Column("rule_version", sa.Text(), nullable=False),
        _time("made_at"),
        sa.CheckConstraint("grade IN ('A', 'B', 'C', 'D')", name=op.f(f"ck_{table}_grade")),
        sa.CheckConstraint("extract(day FROM month) = 1", name=op.f(f"ck_{table}_month")),
        _operator(table),
    )


def _operator(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["operator_id"], ["operator.operator_id"], name=op.f(f"fk_{table}_operator_id_operator")
    )


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_table(
        "credit_grade",
        sa.Column("operator_id", sa.Text(), nullable=False),
        sa.Column("month", sa.Date(), nullable=False),
        sa.Column("revision", sa.Integer(), autoincrement=False, nullable=False),
        *_grade("credit_grade"),
        sa.Column("made_by", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("operator_id", "month", "revision", name=op.f("pk_credit_grade")),
    )
    op.create_index(op.f("ix_credit_grade_month"), "credit_grade", ["month"])
    op.create_table(
        "credit_draft",
        sa.Column("operator_id", sa.Text(), nullable=False),
        sa.Column("month", sa.Date(), nullable=False),
        *_grade("credit_draft"),
        sa.PrimaryKeyConstraint("operator_id", "month", name=op.f("pk_credit_draft")),
    )
    op.create_table(
        "self_commitment",
        sa.Column("commitment_id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("operator_id", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("made_on", sa.Date(), nullable=False),
        sa.Column("until", sa.Date(), nullable=False),
        sa.Column("made_by", sa.Text(), nullable=False),
        sa.Column("kept", sa.Boolean()),
        sa.Column("decided_on", sa.Date()),
        sa.Column("decided_by", sa.Text()),
        sa.Column("why", sa.Text()),
        sa.Column("published", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.PrimaryKeyConstraint("commitment_id", name=op.f("pk_self_commitment")),
        sa.CheckConstraint(
            "(kept IS NULL) = (decided_on IS NULL)", name=op.f("ck_self_commitment_decided")
        ),
        _operator("self_commitment"),
    )
    op.create_index(
        op.f("ix_self_commitment_operator_id_commitment_id"),
        "self_commitment",
        ["operator_id", "commitment_id"],
    )
    op.create_table(
        "operator_day",
        sa.Column("operator_id", sa.Text(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("station_hours", sa.Integer()),
        sa.Column("heard_hours", sa.Integer()),
        *(
            sa.Column(name, sa.BigInteger(), nullable=False)
            for name in ("messages", "items", "rejected", "sessions")
        ),
        _time("summed_at"),
        sa.PrimaryKeyConstraint("operator_id", "day", name=op.f("pk_operator_day")),
    )
    op.create_index(op.f("ix_operator_day_day"), "operator_day", ["day"])


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    for table in ("operator_day", "self_commitment", "credit_draft", "credit_grade"):
        op.drop_table(table)
