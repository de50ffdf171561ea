"""Drop the indexes that those of 0002 stand in for."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

MONEY = "(NULLIF(priority_money, 'NaN'::double precision)) DESC NULLS LAST"
RANK = (
    "(CASE tier WHEN 'red' THEN 0 WHEN 'orange' THEN 1 WHEN 'yellow' THEN 2 "
    "WHEN 'grey' THEN 3 ELSE 4 END)"
)
KEYS = {
    "ix_assessment_triage": (RANK, MONEY),
    "ix_assessment_money": (MONEY,),
    "ix_assessment_error": (
        "(abs(NULLIF(relative_error, 'NaN'::double precision))) DESC NULLS LAST",
    ),
    "ix_assessment_probability": (
        "(NULLIF(p_nonconforming, 'NaN'::double precision)) DESC NULLS LAST",
    ),
}


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    for name in KEYS:
        op.drop_index(name, "assessment")
    for column in ("station_id", "code"):
        op.drop_index(op.f(f"ix_quarantine_{column}_received_at"), "quarantine")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    for name, keys in KEYS.items():
        parts = [sa.literal_column(key) for key in keys]
        op.create_index(name, "assessment", ["run_id", *parts, "connector_id"])
    for column in ("station_id", "code"):
        name = op.f(f"ix_quarantine_{column}_received_at")
        op.create_index(name, "quarantine", [column, "received_at"])
