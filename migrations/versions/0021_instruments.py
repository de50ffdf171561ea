"""Inspectors, ledger columns, validity and steps of instruments; who changed the registry, why."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

STEPS = "'filed', 'booked', 'accepted', 'verified', 'certificate'"

NOTE_VALIDITY = """
CREATE FUNCTION note_validity(ids integer[]) RETURNS void LANGUAGE sql AS $$
  DELETE FROM instrument_validity i WHERE i.connector_id = ANY(ids)
    AND NOT EXISTS (SELECT FROM verification v WHERE v.connector_id = i.connector_id);
  INSERT INTO instrument_validity (connector_id, until, failed, verification_id)
  SELECT c.id, coalesce(p.valid_until, f.verified_on - 1),
    p.valid_until IS NULL AND f.verified_on IS NOT NULL,
    coalesce(p.verification_id, f.verification_id)
  FROM (SELECT DISTINCT unnest(ids) AS id) c
  LEFT JOIN LATERAL (
    SELECT verified_on, verification_id FROM verification
    WHERE connector_id = c.id AND result = 'fail'
    ORDER BY verified_on DESC, verification_id DESC LIMIT 1
  ) f ON true
  LEFT JOIN LATERAL (
    SELECT valid_until, verification_id FROM verification
    WHERE connector_id = c.id AND result = 'pass' AND valid_until IS NOT NULL
      AND (f.verified_on IS NULL
        OR (verified_on, verification_id) > (f.verified_on, f.verification_id))
    ORDER BY valid_until DESC, verification_id DESC LIMIT 1
  ) p ON true
  WHERE EXISTS (SELECT FROM verification v WHERE v.connector_id = c.id)
  ORDER BY c.id
  ON CONFLICT (connector_id) DO UPDATE SET until = excluded.until, failed = excluded.failed,
    verification_id = excluded.verification_id
$$
"""
ON_CHANGE = """
CREATE FUNCTION verification_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM note_validity(ARRAY(SELECT DISTINCT connector_id FROM changed));
  RETURN NULL;
END $$
"""
# A history of verifications was named by the number of the connector.
RENAME = """
UPDATE registry_history h
SET identifier = rtrim(c.connector || substr(h.identifier, strpos(h.identifier, ' ')))
FROM connector c
WHERE h.kind = 'verifications' AND c.connector_id = (h.after ->> 'connector_id')::integer
"""
NUMBER = """
UPDATE registry_history h
SET identifier = (h.after ->> 'connector_id') || ' ' || (h.after ->> 'verified_on')
  || ' ' || coalesce(h.after ->> 'certificate', '')
WHERE h.kind = 'verifications' AND h.after ? 'connector_id'
"""


# Search by the beginning of a word, and by a model or maker.
INDEXES = {
    "ix_connector_serial_prefix": "connector (upper(serial) text_pattern_ops)",
    "ix_verification_certificate_prefix": "verification (upper(certificate) text_pattern_ops)",
    "ix_connector_model": "connector (model)",
    "ix_connector_manufacturer": "connector (manufacturer)",
}


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    for name, columns in INDEXES.items():
        op.execute(f"CREATE INDEX {name} ON {columns}")
    for name in ("actor", "why"):
        op.add_column(
            "registry_history", sa.Column(name, sa.Text(), server_default="", nullable=False)
        )
    op.alter_column("registry_history", "import_id", nullable=True)
    op.execute(
        "UPDATE registry_history h SET actor = i.actor FROM registry_import i "
        "WHERE i.import_id = h.import_id"
    )
    op.execute(RENAME)
    _make_tables()
    op.execute(NOTE_VALIDITY)
    op.execute(ON_CHANGE)
    for verb, seen in (("INSERT", "NEW"), ("UPDATE", "NEW"), ("DELETE", "OLD")):
        op.execute(
            f"CREATE TRIGGER validity_{verb.lower()} AFTER {verb} ON verification "
            f"REFERENCING {seen} TABLE AS changed "
            "FOR EACH STATEMENT EXECUTE FUNCTION verification_changed()"
        )
    op.execute("SELECT note_validity(ARRAY(SELECT DISTINCT connector_id FROM verification))")


def _make_tables() -> None:
    op.create_table(
        "inspector",
        sa.Column("inspector_id", sa.Integer(), sa.Identity(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("username", sa.Text()),
        sa.Column("active", sa.Boolean(), server_default=sa.true(), nullable=False),
        sa.Column(
            "recused_operators", postgresql.ARRAY(sa.Text()), server_default="{}", nullable=False
        ),
        sa.PrimaryKeyConstraint("inspector_id", name=op.f("pk_inspector")),
        sa.UniqueConstraint("name", name=op.f("uq_inspector_name")),
    )
    op.create_index(op.f("ix_inspector_username"), "inspector", ["username"], unique=True)
    op.create_table(
        "ledger_entry",
        _connector_id(),
        *(
            sa.Column(name, sa.Text())
            for name in ("instrument_name", "item", "kind", "measuring_range", "origin")
        ),
        sa.Column("place", sa.Text()),
        sa.Column("place_code", sa.Text()),
        sa.Column("quantity", sa.Integer()),
        sa.Column("purpose", sa.Text()),
        sa.Column("submission", sa.Text()),
        sa.Column("extra", postgresql.JSONB(), server_default="{}", nullable=False),
        sa.PrimaryKeyConstraint("connector_id", name=op.f("pk_ledger_entry")),
        _of_connector("ledger_entry"),
    )
    op.create_table(
        "instrument_validity",
        _connector_id(),
        sa.Column("until", sa.Date()),
        sa.Column("failed", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("verification_id", sa.BigInteger()),
        sa.PrimaryKeyConstraint("connector_id", name=op.f("pk_instrument_validity")),
        _of_connector("instrument_validity"),
    )
    op.create_index(
        op.f("ix_instrument_validity_until_connector_id"),
        "instrument_validity",
        ["until", "connector_id"],
    )
    op.create_table(
        "due_step",
        sa.Column("step_id", sa.BigInteger(), sa.Identity(), nullable=False),
        _connector_id(),
        sa.Column("cycle", sa.BigInteger(), nullable=False),
        sa.Column("step", sa.Text(), nullable=False),
        sa.Column("done_on", sa.Date(), nullable=False),
        sa.Column("note", sa.Text(), server_default="", nullable=False),
        sa.Column(
            "at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("step_id", name=op.f("pk_due_step")),
        sa.UniqueConstraint(
            "connector_id", "cycle", "step", name=op.f("uq_due_step_connector_id_cycle_step")
        ),
        _of_connector("due_step"),
        sa.CheckConstraint(f"step IN ({STEPS})", name=op.f("ck_due_step_step")),
    )


def _connector_id() -> sa.Column:
    return sa.Column("connector_id", sa.Integer(), nullable=False)


def _of_connector(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["connector_id"],
        ["connector.connector_id"],
        name=op.f(f"fk_{table}_connector_id_connector"),
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    for verb in ("insert", "update", "delete"):
        op.execute(f"DROP TRIGGER validity_{verb} ON verification")
    op.execute("DROP FUNCTION verification_changed()")
    op.execute("DROP FUNCTION note_validity(integer[])")
    for table in ("due_step", "instrument_validity", "ledger_entry", "inspector"):
        op.drop_table(table)
    op.execute(NUMBER)
    # What was changed by hand belongs to no import.
    op.execute("DELETE FROM registry_history WHERE import_id IS NULL")
    op.alter_column("registry_history", "import_id", nullable=False)
    for name in ("why", "actor"):
        op.drop_column("registry_history", name)
    for name in INDEXES:
        op.execute(f"DROP INDEX {name}")
