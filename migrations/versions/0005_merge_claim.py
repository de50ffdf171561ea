"""Functions that merge a claim into the instrument it turned out to be.

They run with their owner's rights: who imports a registry may merge a claim, and still can't
write readings, rollups or assessments otherwise.
"""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# What both kinds have in common. Readings come before the marks, so that a refresh that takes a
# mark away waits for this transaction. The claim's days are marked too: a refresh under way may
# write rollups of the claim once more, and the next one then removes them. Rollups are moved,
# not only marked: readings that retention has deleted can't be computed again.
FUNCTION = """
CREATE FUNCTION {function}(claim integer, instrument integer) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
  PERFORM FROM {registry} c JOIN {registry} i ON i.{name} = c.{name}
  WHERE c.{id} = claim AND NOT c.registered AND i.{id} = instrument AND i.registered;
  IF NOT FOUND THEN
    RAISE EXCEPTION '{name} % is no claim of registered {name} %', claim, instrument;
  END IF;

  INSERT INTO {readings} ({id}, {reading_columns})
    SELECT instrument, {reading_columns} FROM {readings} WHERE {id} = claim
    ON CONFLICT DO NOTHING;
  INSERT INTO rollup_pending (kind, instrument_id, day)
    SELECT DISTINCT {kind}, i.id, (r.at AT TIME ZONE 'UTC')::date
    FROM {readings} r, unnest(ARRAY[claim, instrument]) AS i (id) WHERE r.{id} = claim
    ORDER BY 3, 2
    ON CONFLICT DO NOTHING;
  INSERT INTO rollup_version (kind, day, version)
    SELECT {kind}, day, gen_random_uuid() FROM (
      SELECT (at AT TIME ZONE 'UTC')::date FROM {readings} WHERE {id} = claim
      UNION SELECT (slot_at AT TIME ZONE 'UTC')::date FROM {rollups} WHERE {id} = claim
    ) AS changed (day) ORDER BY day
    ON CONFLICT (kind, day) DO UPDATE SET version = excluded.version;
  DELETE FROM {readings} WHERE {id} = claim;

  INSERT INTO {rollups} ({id}, slot_at, energy_wh, u_wh, quality)
    SELECT instrument, slot_at, energy_wh, u_wh, quality FROM {rollups} WHERE {id} = claim
    ON CONFLICT DO NOTHING;
  DELETE FROM {rollups} WHERE {id} = claim;
{more}
  DELETE FROM {registry} WHERE {id} = claim;
END $$
"""

# An assessment goes on as the instrument's, unless the run has assessed the instrument itself.
OF_CONNECTORS = """
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


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute(
        FUNCTION.format(
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
        FUNCTION.format(
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
    for function in ("merge_connector_claim", "merge_meter_claim"):
        op.execute(f"REVOKE ALL ON FUNCTION {function}(integer, integer) FROM PUBLIC")


def downgrade() -> None:
    op.execute("DROP FUNCTION merge_connector_claim(integer, integer)")
    op.execute("DROP FUNCTION merge_meter_claim(integer, integer)")
