"""Money owed: overcharge and undercharge apart, by connector and month."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

SIDES = ("overcharge", "undercharge")
BY_CAUSE = (
    "overcharge_error",
    "undercharge_error",
    "overcharge_billing",
    "undercharge_billing",
)


def _amounts() -> list[sa.Column[Any]]:
    names = (f"{side}{end}_cny" for side in SIDES for end in ("", "_low", "_high"))
    return [sa.Column(name, sa.Double(), nullable=False) for name in names]


def _figures() -> list[sa.Column[Any]]:
    return [
        sa.Column("sessions", sa.Integer(), nullable=False),
        sa.Column("sessions_unknown", sa.Integer(), nullable=False),
        sa.Column("energy_wh", sa.Double(), nullable=False),
        sa.Column("paid_cny", sa.Double(), nullable=False),
        sa.Column("run_id", sa.BigInteger(), nullable=False),
    ]


def _run(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["run_id"], ["risk_run.run_id"], name=op.f(f"fk_{table}_run_id_risk_run")
    )


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    for name in BY_CAUSE:
        # Not known of the runs before.
        op.add_column(
            "assessment", sa.Column(name, sa.Double(), nullable=False, server_default="NaN")
        )
    op.create_table(
        "money_month",
        sa.Column("month", sa.Date(), nullable=False),
        sa.Column("counted_from", sa.DateTime(timezone=True), nullable=False),
        sa.Column("counted_to", sa.DateTime(timezone=True), nullable=False),
        sa.Column("run_id", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("month", name=op.f("pk_money_month")),
        _run("money_month"),
    )
    op.create_table(
        "money_owed",
        sa.Column("month", sa.Date(), nullable=False),
        sa.Column("connector_id", sa.Integer(), nullable=False),
        sa.Column("operator_id", sa.Text(), nullable=False),
        sa.Column("station_id", sa.Text(), nullable=False),
        sa.Column("cause", sa.Text(), nullable=False),
        *_amounts(),
        *_figures(),
        sa.PrimaryKeyConstraint("month", "connector_id", "cause", name=op.f("pk_money_owed")),
        sa.ForeignKeyConstraint(
            ["connector_id"],
            ["connector.connector_id"],
            name=op.f("fk_money_owed_connector_id_connector"),
            ondelete="CASCADE",
        ),
        _run("money_owed"),
        sa.CheckConstraint("cause IN ('error', 'billing')", name=op.f("ck_money_owed_cause")),
    )
    op.create_index(
        op.f("ix_money_owed_connector_id_month"), "money_owed", ["connector_id", "month"]
    )
    for side in SIDES:
        op.create_index(
            f"ix_money_owed_{side}",
            "money_owed",
            ["month", "cause", sa.text(f"{side}_cny DESC"), "connector_id"],
            postgresql_where=sa.text(f"{side}_cny > 0 AND {side}_cny < 'Infinity'"),
        )
    op.create_table(
        "money_total",
        sa.Column("month", sa.Date(), nullable=False),
        sa.Column("operator_id", sa.Text(), nullable=False),
        sa.Column("cause", sa.Text(), nullable=False),
        *_amounts(),
        *(sa.Column(f"net{end}_cny", sa.Double(), nullable=False) for end in ("", "_low", "_high")),
        sa.Column("connectors", sa.Integer(), nullable=False),
        sa.Column("connectors_unknown", sa.Integer(), nullable=False),
        *_figures(),
        sa.PrimaryKeyConstraint("month", "operator_id", "cause", name=op.f("pk_money_total")),
        _run("money_total"),
        sa.CheckConstraint("cause IN ('error', 'billing')", name=op.f("ck_money_total_cause")),
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    for table in ("money_total", "money_owed", "money_month"):
        op.drop_table(table)
    for name in reversed(BY_CAUSE):
        op.drop_column("assessment", name)
