"""Work that nobody waits for."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None


def _time(name: str, *, now: bool = False) -> sa.Column:
    default = {"server_default": sa.text("now()"), "nullable": False} if now else {}
    return sa.Column(name, sa.DateTime(timezone=True), **default)


def upgrade() -> None:
    op.create_table(
        "job",
        sa.Column("job_id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("arguments", postgresql.JSONB(), nullable=False),
        sa.Column("wanted_by", sa.Text(), nullable=False),
        sa.Column("key", sa.Text()),
        sa.Column("state", sa.Text(), server_default="waiting", nullable=False),
        _time("made_at", now=True),
        _time("due_at", now=True),
        sa.Column("tries", sa.Integer(), server_default="0", nullable=False),
        sa.Column("worker", sa.Text()),
        _time("alive_at"),
        sa.Column("progress", sa.Text(), server_default="", nullable=False),
        _time("finished_at"),
        sa.Column("result", postgresql.JSONB()),
        sa.Column("error", sa.Text(), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_job")),
        sa.UniqueConstraint("key", name=op.f("uq_job_key")),
        sa.CheckConstraint(
            "state IN ('waiting', 'running', 'done', 'failed')", name=op.f("ck_job_state")
        ),
    )
    op.create_index(
        "ix_job_due", "job", ["due_at", "job_id"], postgresql_where=sa.text("state = 'waiting'")
    )
    op.create_index(
        "ix_job_running", "job", ["alive_at"], postgresql_where=sa.text("state = 'running'")
    )
    op.create_index(op.f("ix_job_state_job_id"), "job", ["state", "job_id"])


def downgrade() -> None:
    op.drop_table("job")
