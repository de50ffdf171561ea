"""The error at light load, beside that over all energy."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

NAMES = ("relative_error_light", "standard_uncertainty_light")


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    for name in NAMES:
        # Not known of the runs before.
        op.add_column(
            "assessment", sa.Column(name, sa.Double(), nullable=False, server_default="NaN")
        )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    for name in reversed(NAMES):
        op.drop_column("assessment", name)
