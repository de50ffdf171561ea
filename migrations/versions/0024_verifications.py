"""On-site verifications by load point, what became of flags, changes declared by hand."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

OF_VERIFICATIONS = (
    ("kind", sa.Text()),
    ("rule_set", sa.Text()),
    ("decision_rule", sa.Text()),
    ("reference", sa.Text()),
    ("note", sa.Text()),
    ("file_id", sa.BigInteger()),
    ("inspection_id", sa.BigInteger()),
    ("case_id", sa.BigInteger()),
    ("entered_at", sa.DateTime(timezone=True)),
    ("entered_by", sa.Text()),
    ("withdrawn_at", sa.DateTime(timezone=True)),
    ("withdrawn_by", sa.Text()),
    ("withdrawn_why", sa.Text()),
)
OF_EVENTS = (
    ("declared_by", sa.Text()),
    ("withdrawn_at", sa.DateTime(timezone=True)),
    ("withdrawn_by", sa.Text()),
    ("withdrawn_why", sa.Text()),
)
# As in 0021, of those that stand and decided something.
STANDING = "withdrawn_at IS NULL AND result <> 'undecided'"
NOTE_VALIDITY = """
CREATE OR REPLACE FUNCTION note_validity(ids integer[]) RETURNS void LANGUAGE sql AS $$
  DELETE FROM instrument_validity i WHERE i.connector_id = ANY(ids)
    AND NOT EXISTS (SELECT FROM verification v WHERE v.connector_id = i.connector_id AND {that});
  INSERT INTO instrument_validity (connector_id, until, failed, verification_id)
  SELECT c.id, coalesce(p.valid_until, f.verified_on - 1),
    p.valid_until IS NULL AND f.verified_on IS NOT NULL,
    coalesce(p.verification_id, f.verification_id)
  FROM (SELECT DISTINCT unnest(ids) AS id) c
  LEFT JOIN LATERAL (
    SELECT verified_on, verification_id FROM verification
    WHERE connector_id = c.id AND result = 'fail' AND {that}
    ORDER BY verified_on DESC, verification_id DESC LIMIT 1
  ) f ON true
  LEFT JOIN LATERAL (
    SELECT valid_until, verification_id FROM verification
    WHERE connector_id = c.id AND result = 'pass' AND valid_until IS NOT NULL AND {that}
      AND (f.verified_on IS NULL
        OR (verified_on, verification_id) > (f.verified_on, f.verification_id))
    ORDER BY valid_until DESC, verification_id DESC LIMIT 1
  ) p ON true
  WHERE EXISTS (SELECT FROM verification v WHERE v.connector_id = c.id AND {that})
  ORDER BY c.id
  ON CONFLICT (connector_id) DO UPDATE SET until = excluded.until, failed = excluded.failed,
    verification_id = excluded.verification_id
$$
"""
VERIFICATION_KEY = ["connector_id", "verified_on", "certificate"]
EVENT_KEY = ["operator_id", "station_id", "connector_id", "meter_id", "kind", "at"]


def _point_table() -> None:
    op.create_table(
        "verification_point",
        sa.Column("verification_id", sa.BigInteger(), nullable=False),
        sa.Column("place", sa.SmallInteger(), nullable=False),
        sa.Column("load", sa.Text(), nullable=False),
        sa.Column("current_a", sa.Double()),
        sa.Column("power_w", sa.Double()),
        sa.Column("relative_error", sa.Double()),
        sa.Column("expanded_uncertainty", sa.Double()),
        sa.Column("coverage_factor", sa.Double()),
        sa.Column("limit", sa.Double()),
        sa.Column("basis", sa.Text()),
        sa.Column("clause", sa.Text()),
        sa.Column("verdict", sa.Text(), nullable=False),
        sa.Column("detail", sa.dialects.postgresql.JSONB()),
        sa.PrimaryKeyConstraint("verification_id", "place", name=op.f("pk_verification_point")),
        sa.ForeignKeyConstraint(
            ["verification_id"],
            ["verification.verification_id"],
            name=op.f("fk_verification_point_verification_id_verification"),
        ),
        sa.CheckConstraint(
            "verdict IN ('pass', 'fail', 'inconclusive', 'no_limit')",
            name=op.f("ck_verification_point_verdict"),
        ),
    )


def _outcome_table() -> None:
    op.create_table(
        "flag_outcome",
        sa.Column("connector_id", sa.Integer(), nullable=False),
        sa.Column("flagged_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.Column("tier", sa.Text(), nullable=False),
        sa.Column("verification_id", sa.BigInteger()),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True)),
        sa.Column("delay_days", sa.Double()),
        sa.PrimaryKeyConstraint("connector_id", "flagged_at", name=op.f("pk_flag_outcome")),
        sa.ForeignKeyConstraint(
            ["verification_id"],
            ["verification.verification_id"],
            name=op.f("fk_flag_outcome_verification_id_verification"),
        ),
        sa.CheckConstraint(
            "outcome IN ('hit', 'miss', 'undecided')", name=op.f("ck_flag_outcome_outcome")
        ),
    )
    op.create_index(
        op.f("ix_flag_outcome_flagged_at_connector_id"),
        "flag_outcome",
        ["flagged_at", "connector_id"],
    )
    op.create_index(op.f("ix_flag_outcome_verification_id"), "flag_outcome", ["verification_id"])


def _verifications() -> None:
    for name, kind in OF_VERIFICATIONS:
        op.add_column("verification", sa.Column(name, kind))
    op.drop_constraint(
        op.f("uq_verification_connector_id_verified_on_certificate"), "verification", type_="unique"
    )
    op.create_index(
        "uq_verification_standing",
        "verification",
        VERIFICATION_KEY,
        unique=True,
        postgresql_where=sa.text("withdrawn_at IS NULL"),
    )
    op.create_index(
        op.f("ix_verification_connector_id_verified_on"),
        "verification",
        ["connector_id", "verified_on"],
    )
    op.create_index(
        "ix_verification_entered",
        "verification",
        ["verification_id"],
        postgresql_where=sa.text("entered_at IS NOT NULL"),
    )
    op.drop_constraint(op.f("ck_verification_result"), "verification", type_="check")
    op.create_check_constraint(
        op.f("ck_verification_result"), "verification", "result IN ('pass', 'fail', 'undecided')"
    )
    op.create_check_constraint(
        op.f("ck_verification_kind"),
        "verification",
        "kind IN ('initial', 'subsequent', 'inspection', 'complaint')",
    )


def _events() -> None:
    op.add_column(
        "instrument_event", sa.Column("origin", sa.Text(), server_default="topic", nullable=False)
    )
    for name, kind in OF_EVENTS:
        op.add_column("instrument_event", sa.Column(name, kind))
    op.create_check_constraint(
        op.f("ck_instrument_event_origin"),
        "instrument_event",
        "origin IN ('topic', 'office', 'operator')",
    )
    op.drop_constraint("uq_instrument_event_key", "instrument_event", type_="unique")
    for name, condition in (
        ("uq_instrument_event_key", "origin = 'topic'"),
        ("uq_instrument_event_by_hand", "origin <> 'topic' AND withdrawn_at IS NULL"),
    ):
        op.create_index(
            name, "instrument_event", EVENT_KEY, unique=True, postgresql_where=sa.text(condition)
        )


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    _verifications()
    _point_table()
    _outcome_table()
    _events()
    op.execute(NOTE_VALIDITY.format(that=STANDING))
    op.create_index(
        "ix_assessment_flagged",
        "assessment",
        ["run_id"],
        postgresql_include=["connector_id", "tier"],
        postgresql_where=sa.text("tier IN ('red', 'orange')"),
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_index("ix_assessment_flagged", "assessment")
    op.drop_table("flag_outcome")
    op.drop_table("verification_point")
    # Before this nothing was withdrawn, undecided or declared by hand: such rows can't stay.
    op.execute("DELETE FROM verification WHERE withdrawn_at IS NOT NULL OR result = 'undecided'")
    op.execute("DELETE FROM instrument_event WHERE origin <> 'topic'")
    op.execute(NOTE_VALIDITY.format(that="true"))
    for name in ("ix_verification_entered", "uq_verification_standing"):
        op.drop_index(name, "verification")
    op.drop_index(op.f("ix_verification_connector_id_verified_on"), "verification")
    op.create_unique_constraint(
        op.f("uq_verification_connector_id_verified_on_certificate"),
        "verification",
        VERIFICATION_KEY,
    )
    for name, _ in OF_VERIFICATIONS:
        op.drop_column("verification", name)
    op.drop_constraint(op.f("ck_verification_result"), "verification", type_="check")
    op.create_check_constraint(
        op.f("ck_verification_result"), "verification", "result IN ('pass', 'fail')"
    )
    for name in ("uq_instrument_event_key", "uq_instrument_event_by_hand"):
        op.drop_index(name, "instrument_event")
    for name in ("origin", *(name for name, _ in OF_EVENTS)):
        op.drop_column("instrument_event", name)
    op.create_unique_constraint("uq_instrument_event_key", "instrument_event", EVENT_KEY)
