"""What drivers paid too much and too little: by connector and month, and summed by operator."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Date,
    Double,
    ForeignKey,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
    text,
)

from chargewatch.storage.tables.base import Timestamp, metadata

CAUSES = ("error", "billing")
"""By what the meter indicates; by what is charged for that."""


def _amounts() -> list[Column[Any]]:
    """Return an expected amount of each side with its 95 % interval, money; NaN: not known."""
    return [
        Column(f"{side}{end}_cny", Double, nullable=False)
        for side in ("overcharge", "undercharge")
        for end in ("", "_low", "_high")
    ]


# Which part of a month was counted, and by which run.
money_month = Table(
    "money_month",
    metadata,
    # The first day of a month of the city's own calendar.
    Column("month", Date, primary_key=True),
    Column("counted_from", Timestamp, nullable=False),
    Column("counted_to", Timestamp, nullable=False),
    Column("run_id", BigInteger, ForeignKey("risk_run.run_id"), nullable=False),
)

money_owed = Table(
    "money_owed",
    metadata,
    Column("month", Date, nullable=False),
    Column(
        "connector_id",
        Integer,
        ForeignKey("connector.connector_id", ondelete="CASCADE"),
        nullable=False,
    ),
    # Whose it was and where it stood when it was counted.
    Column("operator_id", Text, nullable=False),
    Column("station_id", Text, nullable=False),
    # error: by what the meter indicates; billing: by what is charged for that.
    Column("cause", Text, nullable=False),
    *_amounts(),
    # Of all that the cause may concern, and of those whose amount is not known.
    Column("sessions", Integer, nullable=False),
    Column("sessions_unknown", Integer, nullable=False),
    Column("energy_wh", Double, nullable=False),
    Column("paid_cny", Double, nullable=False),
    # By error: which share of the energy that was indicated was not delivered, and which one before
    # the error changed (NaN: not known). It went over from one to the other between the two times;
    # nothing is known of a meter that was replaced.
    Column("undelivered_share", Double, nullable=False, server_default="NaN"),
    Column("undelivered_share_before", Double, nullable=False, server_default="NaN"),
    Column("changed_at", Timestamp, nullable=False, server_default="epoch"),
    Column("settled_at", Timestamp, nullable=False, server_default="epoch"),
    Column("known_from", Timestamp, nullable=False, server_default="epoch"),
    Column("run_id", BigInteger, ForeignKey("risk_run.run_id"), nullable=False),
    PrimaryKeyConstraint("month", "connector_id", "cause"),
    CheckConstraint("cause IN ('error', 'billing')", name="cause"),
    Index(None, "connector_id", "month"),
    # Lists of a month hold those with half a cent or more on their side, the most first. NaN is
    # above all.
    *(
        Index(
            f"ix_money_owed_{side}",
            "month",
            "cause",
            text(f"{side}_cny DESC"),
            "connector_id",
            # Last: what an operator sees of a list is found without a look at the rows.
            "operator_id",
            postgresql_where=text(f"{side}_cny >= 0.005 AND {side}_cny < 'Infinity'"),
        )
        for side in ("overcharge", "undercharge")
    ),
)

# Sums by operator ('': all of them), made with the rows: what connectors share does not average
# out, so intervals of sums can't be had from those of the rows.
money_total = Table(
    "money_total",
    metadata,
    Column("month", Date, nullable=False),
    Column("operator_id", Text, nullable=False),
    Column("cause", Text, nullable=False),
    *_amounts(),
    Column("net_cny", Double, nullable=False),
    Column("net_low_cny", Double, nullable=False),
    Column("net_high_cny", Double, nullable=False),
    Column("connectors", Integer, nullable=False),
    Column("connectors_unknown", Integer, nullable=False),
    Column("sessions", Integer, nullable=False),
    Column("sessions_unknown", Integer, nullable=False),
    Column("energy_wh", Double, nullable=False),
    Column("paid_cny", Double, nullable=False),
    Column("run_id", BigInteger, ForeignKey("risk_run.run_id"), nullable=False),
    PrimaryKeyConstraint("month", "operator_id", "cause"),
    CheckConstraint("cause IN ('error', 'billing')", name="cause"),
)
