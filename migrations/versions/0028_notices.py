"""What users and programs are told."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None


def _time(name: str, *, nullable: bool = False, now: bool = False) -> sa.Column:
    default = {"server_default": sa.text("now()")} if now else {}
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable, **default)


def _text(name: str, default: str | None = None) -> sa.Column:
    return sa.Column(name, sa.Text(), nullable=False, server_default=default)


def _user(table: str) -> tuple[sa.Column, sa.ForeignKeyConstraint, sa.PrimaryKeyConstraint]:
    return (
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"], ["app_user.user_id"], name=op.f(f"fk_{table}_user_id_app_user")
        ),
        sa.PrimaryKeyConstraint("user_id", name=op.f(f"pk_{table}")),
    )


def upgrade() -> None:
    op.create_table(
        "notice",
        sa.Column("notice_id", sa.BigInteger(), sa.Identity(), nullable=False),
        *(_text(name) for name in ("username", "kind", "key", "path")),
        sa.Column("detail", postgresql.JSONB(), nullable=False),
        _time("made_at", now=True),
        _time("read_at", nullable=True),
        sa.PrimaryKeyConstraint("notice_id", name=op.f("pk_notice")),
        sa.UniqueConstraint("username", "key", name=op.f("uq_notice_username_key")),
    )
    op.create_index(op.f("ix_notice_username_notice_id"), "notice", ["username", "notice_id"])
    op.create_index(op.f("ix_notice_made_at"), "notice", ["made_at"])
    op.create_table(
        "notice_wish",
        *_user("notice_wish"),
        _text("mail", ""),
        _text("language", "zh"),
        sa.Column("mail_kinds", postgresql.ARRAY(sa.Text()), nullable=False, server_default="{}"),
        sa.CheckConstraint("language IN ('en', 'zh')", name=op.f("ck_notice_wish_language")),
    )
    op.create_table("brief_seen", *_user("brief_seen"), _time("seen_at"))
    op.create_table(
        "webhook",
        sa.Column("webhook_id", sa.BigInteger(), sa.Identity(), nullable=False),
        *(_text(name) for name in ("label", "address", "secret")),
        sa.Column("kinds", postgresql.ARRAY(sa.Text()), nullable=False),
        _time("made_at", now=True),
        _text("made_by"),
        _time("ended_at", nullable=True),
        sa.PrimaryKeyConstraint("webhook_id", name=op.f("pk_webhook")),
    )
    op.create_table(
        "notice_mark",
        _text("source"),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("source", name=op.f("pk_notice_mark")),
    )


def downgrade() -> None:
    for table in ("notice_mark", "webhook", "brief_seen", "notice_wish", "notice"):
        op.drop_table(table)
