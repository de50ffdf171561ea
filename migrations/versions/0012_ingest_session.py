"""Sessions of ingest: client ids that can't be guessed, and which worker is subscribed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    # NULL: a session of version 0.1.0, whose client id was the setting.
    op.add_column("ingest_session", sa.Column("shard_index", sa.Integer()))
    op.add_column("ingest_session", sa.Column("shard_count", sa.Integer()))
    op.add_column("ingest_session", sa.Column("subscribed_at", sa.DateTime(timezone=True)))
    op.add_column(
        "ingest_session",
        sa.Column("retired", sa.Boolean(), nullable=False, server_default="false"),
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    for name in ("retired", "subscribed_at", "shard_count", "shard_index"):
        op.drop_column("ingest_session", name)
