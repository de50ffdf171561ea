"""The office's cases, what was done and said in each, and files that were handed in."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

CHECKS = {
    "state": "state IN ('open', 'assigned', 'inspecting', 'waiting_for_operator', 'closed')",
    "outcome": "outcome IN ('confirmed', 'not_confirmed', 'inconclusive')",
    "origin": "origin IN ('flag', 'signal', 'complaint', 'hand')",
    "closed_with_outcome": "(state = 'closed') = (outcome IS NOT NULL) "
    "AND (state = 'closed') = (closed_at IS NOT NULL)",
    "work_has_owner": "state NOT IN ('assigned', 'inspecting') OR owner IS NOT NULL",
}


def _at(name: str, *, nullable: bool = False) -> sa.Column:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def _text(name: str, *, nullable: bool = False, default: str | None = None) -> sa.Column:
    return sa.Column(name, sa.Text(), nullable=nullable, server_default=default)


def _number(table: str, name: str) -> list[sa.Column | sa.PrimaryKeyConstraint]:
    return [
        sa.Column(name, sa.BigInteger(), sa.Identity(), nullable=False),
        sa.PrimaryKeyConstraint(name, name=op.f(f"pk_{table}")),
    ]


def _make_cases() -> None:
    op.create_table(
        "case_year",
        sa.Column("year", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("last", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("year", name=op.f("pk_case_year")),
    )
    op.create_table(
        "office_case",
        *_number("office_case", "case_id"),
        *(_text(name) for name in ("number", "operator_id", "station_id")),
        _text("connector", nullable=True),
        *(_text(name) for name in ("subject", "origin")),
        _text("origin_key", default=""),
        *(_text(name) for name in ("title", "state")),
        *(_text(name, nullable=True) for name in ("outcome", "owner")),
        sa.Column("deadline", sa.Date()),
        _at("opened_at"),
        _text("opened_by"),
        *(_at(name, nullable=True) for name in ("closed_at", "flagged_at")),
        _at("changed_at"),
        _at("shown_at", nullable=True),
        sa.UniqueConstraint("number", name=op.f("uq_office_case_number")),
        *(
            sa.CheckConstraint(rule, name=op.f(f"ck_office_case_{name}"))
            for name, rule in CHECKS.items()
        ),
    )
    op.create_index(
        "uq_office_case_open",
        "office_case",
        ["operator_id", "subject"],
        unique=True,
        postgresql_where=sa.text("state <> 'closed'"),
    )
    for name in ("subject", "station_id", "operator_id", "owner", "state", "changed_at"):
        op.create_index(op.f(f"ix_office_case_{name}_case_id"), "office_case", [name, "case_id"])
    op.create_index(
        "ix_office_case_deadline",
        "office_case",
        [sa.text("coalesce(deadline, 'infinity'::date)"), "case_id"],
        postgresql_where=sa.text("state <> 'closed'"),
    )


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_table(
        "office_file",
        *_number("office_file", "file_id"),
        *(_text(name) for name in ("name", "media_type")),
        sa.Column("size", sa.Integer(), nullable=False),
        _text("sha256"),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.Column(
            "added_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        _text("added_by"),
    )
    _make_cases()
    op.create_table(
        "case_entry",
        *_number("case_entry", "entry_id"),
        sa.Column("case_id", sa.BigInteger(), nullable=False),
        _at("at"),
        *(_text(name) for name in ("author", "kind")),
        _text("text", default=""),
        sa.Column("for_operator", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("file_id", sa.BigInteger()),
        sa.Column("detail", JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.ForeignKeyConstraint(
            ["case_id"], ["office_case.case_id"], name=op.f("fk_case_entry_case_id_office_case")
        ),
        sa.ForeignKeyConstraint(
            ["file_id"], ["office_file.file_id"], name=op.f("fk_case_entry_file_id_office_file")
        ),
    )
    op.create_index(op.f("ix_case_entry_case_id_entry_id"), "case_entry", ["case_id", "entry_id"])
    op.create_index(op.f("ix_case_entry_file_id"), "case_entry", ["file_id"], unique=True)


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    for name in ("case_entry", "office_case", "case_year", "office_file"):
        op.drop_table(name)
