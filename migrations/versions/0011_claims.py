"""Claims beside registered instruments: neither an import nor a merge makes ingest wait for long.

A claim has a key of its own, so that ingest can make one while an import, not yet committed,
registers the same instrument. The import merges it afterwards, some readings at a time: the claim's
row is locked, and ingest holds its rows too while it writes for them (`standing_claims`).
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

TABLES = (("connector", "connector"), ("reference_meter", "meter"))

# What both kinds have in common. Readings come before the marks, so that a refresh that takes a
# mark away waits for this transaction. The claim's days are marked too: a refresh under way may
# write rollups of the claim once more, and the next one then removes them. Rollups are moved,
# not only marked: readings that retention has deleted can't be computed again.
MERGE = """
CREATE FUNCTION {function}(claim integer, instrument integer, most integer) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
  until timestamptz;
BEGIN
  PERFORM FROM {registry} c JOIN {registry} i
    ON i.{name} = c.{name} AND i.operator_id = c.operator_id AND i.station_id = c.station_id
  WHERE c.{id} = claim AND NOT c.registered AND i.{id} = instrument AND i.registered
  FOR UPDATE OF c;
  IF NOT FOUND THEN
    RAISE EXCEPTION '{name} % is no claim of registered {name} %', claim, instrument;
  END IF;

  SELECT at INTO until FROM {readings} WHERE {id} = claim ORDER BY at OFFSET most LIMIT 1;
  until := coalesce(until, 'infinity');
  INSERT INTO {readings} ({id}, {reading_columns})
    SELECT instrument, {reading_columns} FROM {readings} WHERE {id} = claim AND at < until
    ON CONFLICT DO NOTHING;
  INSERT INTO rollup_pending (kind, instrument_id, day)
    SELECT DISTINCT {kind}, i.id, (r.at AT TIME ZONE 'UTC')::date
    FROM {readings} r, unnest(ARRAY[claim, instrument]) AS i (id)
    WHERE r.{id} = claim AND r.at < until
    ORDER BY 3, 2
    ON CONFLICT DO NOTHING;
  INSERT INTO rollup_version (kind, day, version)
    SELECT {kind}, day, gen_random_uuid() FROM (
      SELECT (at AT TIME ZONE 'UTC')::date FROM {readings} WHERE {id} = claim AND at < until
      UNION SELECT (slot_at AT TIME ZONE 'UTC')::date FROM {rollups}
      WHERE {id} = claim AND until = 'infinity'
    ) AS changed (day) ORDER BY day
    ON CONFLICT (kind, day) DO UPDATE SET version = excluded.version;
  DELETE FROM {readings} WHERE {id} = claim AND at < until;
  IF until < 'infinity' THEN
    RETURN false;
  END IF;

  INSERT INTO {rollups} ({id}, slot_at, energy_wh, u_wh, quality)
    SELECT instrument, slot_at, energy_wh, u_wh, quality FROM {rollups} WHERE {id} = claim
    ON CONFLICT DO NOTHING;
  DELETE FROM {rollups} WHERE {id} = claim;
{more}
  DELETE FROM instrument_event i USING instrument_event c
    WHERE c.{id} = claim AND i.{id} = instrument AND i.operator_id = c.operator_id
    AND i.station_id = c.station_id AND i.kind = c.kind AND i.at = c.at;
  UPDATE instrument_event SET {id} = instrument WHERE {id} = claim;
  DELETE FROM {registry} WHERE {id} = claim;
  RETURN true;
END $$
"""

# What the claim and the instrument both have is the same, sent twice: the claim's stays. An
# assessment goes on as the instrument's, unless the run has assessed the instrument itself.
OF_CONNECTORS = """
  DELETE FROM charging_session i USING charging_session c
    WHERE c.connector_id = claim AND i.connector_id = instrument
    AND i.operator_id = c.operator_id AND i.station_id = c.station_id AND i.session = c.session;
  UPDATE charging_session SET connector_id = instrument WHERE connector_id = claim;
  INSERT INTO latest_reading (connector_id, at, energy_wh, power_w, received_at)
    SELECT instrument, at, energy_wh, power_w, received_at
    FROM latest_reading WHERE connector_id = claim
    ON CONFLICT (connector_id) DO UPDATE SET at = excluded.at, energy_wh = excluded.energy_wh,
      power_w = excluded.power_w, received_at = excluded.received_at
    WHERE excluded.at > latest_reading.at;
  DELETE FROM latest_reading WHERE connector_id = claim;
  UPDATE assessment a SET connector_id = instrument WHERE connector_id = claim
    AND NOT EXISTS (SELECT FROM assessment o
      WHERE o.run_id = a.run_id AND o.connector_id = instrument);
  DELETE FROM assessment WHERE connector_id = claim;
"""

# Ingest may not change the registry; a lock on a row takes the right to.
STANDING = """
CREATE FUNCTION standing_claims(connectors integer[], meters integer[]) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
  PERFORM FROM connector WHERE connector_id = ANY(connectors) ORDER BY connector_id FOR KEY SHARE;
  PERFORM FROM reference_meter WHERE meter_id = ANY(meters) ORDER BY meter_id FOR KEY SHARE;
  RETURN (SELECT count(*) FROM connector WHERE connector_id = ANY(connectors))
    + (SELECT count(*) FROM reference_meter WHERE meter_id = ANY(meters));
END $$
"""


def _migration(name: str) -> Any:
    """Return another migration of this folder."""
    file = Path(__file__).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"migration_{name}", file)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    for table, name in TABLES:
        key = [name, "operator_id", "station_id"]
        op.drop_constraint(op.f(f"uq_{table}_{'_'.join(key)}"), table)
        op.create_index(op.f(f"ix_{table}_{'_'.join(key)}"), table, key)
        op.create_index(
            f"uq_{table}_claim", table, key, unique=True, postgresql_where=sa.text("NOT registered")
        )
    op.execute("DROP FUNCTION merge_connector_claim(integer, integer)")
    op.execute("DROP FUNCTION merge_meter_claim(integer, integer)")
    op.execute(
        MERGE.format(
            function="merge_connector_claim",
            registry="connector",
            name="connector",
            id="connector_id",
            kind=0,
            readings="register_reading",
            reading_columns="""at, energy_wh, power_w, voltage_v, current_a, soc_pct,
      session_key, context""",
            rollups="connector_interval",
            more=OF_CONNECTORS,
        )
    )
    op.execute(
        MERGE.format(
            function="merge_meter_claim",
            registry="reference_meter",
            name="meter",
            id="meter_id",
            kind=1,
            readings="reference_reading",
            reading_columns="at, energy_wh",
            rollups="meter_interval",
            more="",
        )
    )
    op.execute(STANDING)
    for function in ("merge_connector_claim", "merge_meter_claim"):
        op.execute(f"REVOKE ALL ON FUNCTION {function}(integer, integer, integer) FROM PUBLIC")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("DROP FUNCTION standing_claims(integer[], integer[])")
    for function in ("merge_connector_claim", "merge_meter_claim"):
        op.execute(f"DROP FUNCTION {function}(integer, integer, integer)")
    # The functions of before are those of 0005 as 0008 has changed them.
    _migration("0005_merge_claim").upgrade()
    _migration("0008_events")._merges(forward=True)
    for table, name in TABLES:
        key = [name, "operator_id", "station_id"]
        op.drop_index(f"uq_{table}_claim", table)
        op.drop_index(op.f(f"ix_{table}_{'_'.join(key)}"), table)
        op.create_unique_constraint(op.f(f"uq_{table}_{'_'.join(key)}"), table, key)
