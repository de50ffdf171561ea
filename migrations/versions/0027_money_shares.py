"""Money owed: the share of the energy that was not delivered, and when it changed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None

SHARES = ("undelivered_share", "undelivered_share_before")
TIMES = ("changed_at", "settled_at", "known_from")


def _index(least: str, *last: str) -> None:
    for side in ("overcharge", "undercharge"):
        op.drop_index(f"ix_money_owed_{side}", "money_owed")
        op.create_index(
            f"ix_money_owed_{side}",
            "money_owed",
            ["month", "cause", sa.text(f"{side}_cny DESC"), "connector_id", *last],
            postgresql_where=sa.text(f"{side}_cny {least} AND {side}_cny < 'Infinity'"),
        )


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    _index(">= 0.005", "operator_id")
    for name in SHARES:
        op.add_column(
            "money_owed", sa.Column(name, sa.Double(), nullable=False, server_default="NaN")
        )
    for name in TIMES:
        op.add_column(
            "money_owed",
            sa.Column(name, sa.DateTime(timezone=True), nullable=False, server_default="epoch"),
        )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    _index("> 0")
    for name in reversed((*SHARES, *TIMES)):
        op.drop_column("money_owed", name)
