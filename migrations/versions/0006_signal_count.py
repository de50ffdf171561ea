"""Counts of signals beyond 32 bits: a gateway that jumps in its sequence misses very many."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.alter_column("signal", "count", type_=sa.BigInteger(), existing_type=sa.Integer())


def downgrade() -> None:
    op.alter_column("signal", "count", type_=sa.Integer(), existing_type=sa.BigInteger())
