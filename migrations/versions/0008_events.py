"""Declared changes; fees and discounts of sessions; a session's id is unique at its connector.

Making the new unique key of charging_session keeps ingest waiting; what gateways send meanwhile
waits at the broker.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

# What the functions that merge a claim do more. What the claim and the instrument both have is the
# same, sent twice: the claim's came first and stays.
OLD_SESSIONS = """
  UPDATE charging_session SET connector_id = instrument WHERE connector_id = claim;
"""
TWICE = """
  DELETE FROM charging_session i USING charging_session c
    WHERE c.connector_id = claim AND i.connector_id = instrument
    AND i.operator_id = c.operator_id AND i.station_id = c.station_id AND i.session = c.session;"""
NEW_SESSIONS = TWICE + OLD_SESSIONS
EVENTS = """
  DELETE FROM instrument_event i USING instrument_event c
    WHERE c.{id} = claim AND i.{id} = instrument AND i.operator_id = c.operator_id
    AND i.station_id = c.station_id AND i.kind = c.kind AND i.at = c.at;
  UPDATE instrument_event SET {id} = instrument WHERE {id} = claim;
"""
LAST = """
  DELETE FROM {registry} WHERE {id} = claim;
"""


def _rewrite(function: str, changes: dict[str, str]) -> None:
    """Replace parts of a function; every part must be there."""
    text = (
        op.get_bind()
        .execute(sa.text("SELECT pg_get_functiondef(CAST(:name AS regproc))"), {"name": function})
        .scalar_one()
    )
    for old, new in changes.items():
        if old not in text:
            raise ValueError(f"{function} is not the function that migration {revision} knows")
        text = text.replace(old, new)
    op.get_bind().exec_driver_sql(text)


def _merges(*, forward: bool) -> None:
    connector = {"registry": "connector", "id": "connector_id"}
    meter = {"registry": "reference_meter", "id": "meter_id"}
    for function, names, more in (
        ("merge_connector_claim", connector, {OLD_SESSIONS: NEW_SESSIONS}),
        ("merge_meter_claim", meter, {}),
    ):
        last = LAST.format(**names)
        changes = {**more, last: EVENTS.format(**names) + last.lstrip("\n")}
        _rewrite(function, changes if forward else {new: old for old, new in changes.items()})


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_table(
        "instrument_event",
        sa.Column("event_id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("operator_id", sa.Text(), nullable=False),
        sa.Column("station_id", sa.Text(), nullable=False),
        sa.Column("connector_id", sa.Integer(), nullable=False),
        sa.Column("meter_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("serial", sa.Text(), nullable=True),
        sa.Column("start_wh", sa.Double(), nullable=True),
        sa.Column("stop_wh", sa.Double(), nullable=True),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("event_id", name=op.f("pk_instrument_event")),
        sa.UniqueConstraint(
            *("operator_id", "station_id", "connector_id", "meter_id", "kind", "at"),
            name="uq_instrument_event_key",
        ),
    )
    for column in ("connector_id", "meter_id"):
        name = op.f(f"ix_instrument_event_{column}_at")
        op.create_index(name, "instrument_event", [column, "at"])
    op.add_column("charging_session", sa.Column("other_fee", sa.Numeric(), nullable=True))
    op.add_column("charging_session", sa.Column("discount", sa.Numeric(), nullable=True))
    op.create_unique_constraint(
        "uq_charging_session_key",
        "charging_session",
        ["operator_id", "station_id", "session", "connector_id"],
    )
    op.drop_constraint(
        op.f("uq_charging_session_operator_id_station_id_session"), "charging_session"
    )
    _merges(forward=True)


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    _merges(forward=False)
    op.create_unique_constraint(
        op.f("uq_charging_session_operator_id_station_id_session"),
        "charging_session",
        ["operator_id", "station_id", "session"],
    )
    op.drop_constraint("uq_charging_session_key", "charging_session")
    op.drop_column("charging_session", "discount")
    op.drop_column("charging_session", "other_fee")
    op.drop_table("instrument_event")
