"""The audit trail: entries chained by their hashes, and signed checkpoints."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

FOLLOWS = """
CREATE FUNCTION audit_entry_follows() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE last record;
BEGIN
  SELECT entry, chain INTO last FROM audit_entry ORDER BY entry DESC LIMIT 1;
  IF NEW.entry <> coalesce(last.entry + 1, 0) THEN
    RAISE EXCEPTION 'audit entry % does not follow entry %', NEW.entry, coalesce(last.entry, -1);
  END IF;
  IF NEW.chain <> sha256(coalesce(last.chain, decode(repeat('00', 32), 'hex'))
                         || convert_to(NEW.content, 'UTF8')) THEN
    RAISE EXCEPTION 'audit entry % is not chained to the one before', NEW.entry;
  END IF;
  RETURN NEW;
END $$
"""
STAYS = """
CREATE FUNCTION audit_stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'the audit trail is only added to: % of % refused', TG_OP, TG_TABLE_NAME;
END $$
"""


def _taken(name: str) -> sa.Column:
    return sa.Column(
        name, sa.Text(), sa.Computed(f"content::jsonb ->> '{name}'", persisted=True), nullable=True
    )


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_table(
        "audit_entry",
        sa.Column("entry", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("chain", sa.LargeBinary(), nullable=False),
        *(_taken(name) for name in ("at", "actor", "action", "subject")),
        sa.PrimaryKeyConstraint("entry", name=op.f("pk_audit_entry")),
    )
    for name in ("subject", "actor"):
        op.create_index(op.f(f"ix_audit_entry_{name}_entry"), "audit_entry", [name, "entry"])
    op.create_table(
        "audit_checkpoint",
        sa.Column("size", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("size", name=op.f("pk_audit_checkpoint")),
    )
    op.execute(FOLLOWS)
    op.execute(STAYS)
    op.execute(
        "CREATE TRIGGER follows BEFORE INSERT ON audit_entry "
        "FOR EACH ROW EXECUTE FUNCTION audit_entry_follows()"
    )
    for table in ("audit_entry", "audit_checkpoint"):
        op.execute(
            f"CREATE TRIGGER stays BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION audit_stays()"
        )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_table("audit_checkpoint")
    op.drop_table("audit_entry")
    op.execute("DROP FUNCTION audit_entry_follows()")
    op.execute("DROP FUNCTION audit_stays()")
