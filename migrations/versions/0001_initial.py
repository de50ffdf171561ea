"""The first schema."""

from __future__ import annotations

from alembic import op

from chargewatch.storage.tables import CHUNK_INTERVALS, HYPERTABLES, metadata

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    connection = op.get_bind()
    metadata.create_all(connection)
    has_timescale = connection.exec_driver_sql(
        "SELECT count(*) FROM pg_extension WHERE extname = 'timescaledb'"
    ).scalar_one()
    if has_timescale:
        for table, column in HYPERTABLES.items():
            op.execute(
                f"SELECT create_hypertable('{table}', by_range('{column}', "
                f"INTERVAL '{CHUNK_INTERVALS[table]}'), create_default_indexes => false)"
            )


def downgrade() -> None:
    metadata.drop_all(op.get_bind())
