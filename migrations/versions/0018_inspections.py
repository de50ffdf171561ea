"""Inspection draws, throws, recusals and inspections."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def _text(name: str, *, nullable: bool = False, empty: bool = False) -> sa.Column:
    return sa.Column(name, sa.Text(), nullable=nullable, server_default="" if empty else None)


def _time(name: str, *, nullable: bool = True) -> sa.Column:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def _count(name: str, *, nullable: bool = False) -> sa.Column:
    return sa.Column(name, sa.Integer(), nullable=nullable)


def _of_draw(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["draw_id"],
        ["inspection_draw.draw_id"],
        name=op.f(f"fk_{table}_draw_id_inspection_draw"),
    )


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_table(
        "inspection_draw",
        *(_text(name) for name in ("draw_id", "state", "list_text", "list_sha256")),
        _count("piles"),
        sa.Column("lots", JSONB(), nullable=False),
        sa.Column("excluded", JSONB(), nullable=False),
        sa.Column("lot", JSONB()),
        sa.Column("plan", JSONB()),
        _text("weights_rule"),
        _count("size"),
        sa.Column("uniform_share", sa.Numeric(), nullable=False),
        _count("crew"),
        _count("due_days"),
        _time("frozen_at", nullable=False),
        _text("made_by"),
        _text("beacon_source", empty=True),
        _time("published_at"),
        sa.Column("timestamp_token", sa.LargeBinary()),
        _time("drawn_at"),
        _text("bundle", nullable=True),
        sa.Column("opens_on", sa.Date()),
        _time("opened_at"),
        _time("withdrawn_at"),
        _text("withdrawn_why", empty=True),
        sa.PrimaryKeyConstraint("draw_id", name=op.f("pk_inspection_draw")),
        sa.CheckConstraint(
            "state IN ('frozen', 'published', 'drawn', 'done', 'withdrawn')",
            name=op.f("ck_inspection_draw_state"),
        ),
    )
    op.create_index(op.f("ix_inspection_draw_frozen_at"), "inspection_draw", ["frozen_at"])
    op.create_table(
        "draw_throw",
        *(_text(name) for name in ("draw_id", "witness", "entered_by", "digits")),
        _time("at", nullable=False),
        sa.PrimaryKeyConstraint("draw_id", "witness", name=op.f("pk_draw_throw")),
        sa.UniqueConstraint("draw_id", "entered_by", name=op.f("uq_draw_throw_draw_id_entered_by")),
        _of_draw("draw_throw"),
    )
    op.create_table(
        "draw_recusal",
        *(_text(name) for name in ("draw_id", "inspector", "operator_id", "why")),
        _time("at", nullable=False),
        _text("entered_by"),
        sa.PrimaryKeyConstraint(
            "draw_id", "inspector", "operator_id", name=op.f("pk_draw_recusal")
        ),
        _of_draw("draw_recusal"),
    )
    _create_inspection()


def _create_inspection() -> None:
    op.create_table(
        "inspection",
        sa.Column("inspection_id", sa.BigInteger(), sa.Identity(), nullable=False),
        _text("draw_id", nullable=True),
        sa.Column("case_id", sa.BigInteger()),
        *(_text(name) for name in ("connector", "station_id", "operator_id", "inspector")),
        sa.Column("crew", ARRAY(sa.Text()), nullable=False),
        _text("part"),
        _count("rank", nullable=True),
        _text("ticket", nullable=True),
        _time("planned_at", nullable=False),
        sa.Column("due_on", sa.Date(), nullable=False),
        _text("state"),
        sa.Column("verification_id", sa.BigInteger()),
        _text("result", nullable=True),
        sa.Column("done_on", sa.Date()),
        _text("cancelled_why", empty=True),
        sa.PrimaryKeyConstraint("inspection_id", name=op.f("pk_inspection")),
        _of_draw("inspection"),
        sa.ForeignKeyConstraint(
            ["verification_id"],
            ["verification.verification_id"],
            name=op.f("fk_inspection_verification_id_verification"),
        ),
        sa.CheckConstraint(
            "part IN ('uniform', 'weighted', 'case')", name=op.f("ck_inspection_part")
        ),
        sa.CheckConstraint(
            "state IN ('planned', 'done', 'cancelled')", name=op.f("ck_inspection_state")
        ),
        sa.CheckConstraint("result IN ('pass', 'fail')", name=op.f("ck_inspection_result")),
        sa.CheckConstraint(
            "(state = 'done') = (result IS NOT NULL)",
            name=op.f("ck_inspection_done_with_result"),
        ),
    )
    op.create_index("uq_inspection_rank", "inspection", ["draw_id", "rank"], unique=True)
    for columns in (
        ["connector"],
        ["case_id"],
        ["operator_id", "inspection_id"],
        ["verification_id"],
    ):
        op.create_index(op.f(f"ix_inspection_{'_'.join(columns)}"), "inspection", columns)
    op.create_index(
        "ix_inspection_planned",
        "inspection",
        ["due_on", "inspection_id"],
        postgresql_where=sa.text("state = 'planned'"),
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    for table in ("inspection", "draw_recusal", "draw_throw", "inspection_draw"):
        op.drop_table(table)
