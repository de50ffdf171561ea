"""The first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# Table, the time column it is chunked by, and the length of a chunk.
HYPERTABLES = {
    "register_reading": ("at", "1 day"),
    "reference_reading": ("at", "1 day"),
    "message_ledger": ("received_at", "7 days"),
    "connector_interval": ("slot_at", "14 days"),
    "meter_interval": ("slot_at", "14 days"),
}


def make_hypertables() -> None:
    has_timescale = (
        op.get_bind()
        .exec_driver_sql("SELECT count(*) FROM pg_extension WHERE extname = 'timescaledb'")
        .scalar_one()
    )
    if not has_timescale:
        return
    for table, (column, interval) in HYPERTABLES.items():
        op.execute(
            f"SELECT create_hypertable('{table}', by_range('{column}', INTERVAL '{interval}'), "
            "create_default_indexes => false)"
        )


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_table(
        "app_user",
        sa.Column("user_id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("username", sa.Text(), nullable=False),
        sa.Column("password_hash", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("operator_id", sa.Text(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("disabled", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.CheckConstraint(
            "role IN ('administrator', 'supervisor', 'inspector', 'operator')",
            name=op.f("ck_app_user_role"),
        ),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_app_user")),
        sa.UniqueConstraint("username", name=op.f("uq_app_user_username")),
    )
    op.create_table(
        "charging_session",
        sa.Column("session_id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("operator_id", sa.Text(), nullable=False),
        sa.Column("station_id", sa.Text(), nullable=False),
        sa.Column("connector_id", sa.Integer(), nullable=False),
        sa.Column("session", sa.Text(), nullable=False),
        sa.Column("vehicle", sa.Text(), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("start_wh", sa.Double(), nullable=False),
        sa.Column("stop_wh", sa.Double(), nullable=False),
        sa.Column("billed_wh", sa.Double(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=True),
        sa.Column("energy_fee", sa.Numeric(), nullable=True),
        sa.Column("service_fee", sa.Numeric(), nullable=True),
        sa.Column("total_fee", sa.Numeric(), nullable=True),
        sa.Column("periods", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("soc_start_pct", sa.REAL(), nullable=True),
        sa.Column("soc_stop_pct", sa.REAL(), nullable=True),
        sa.Column("battery_capacity_wh", sa.Double(), nullable=True),
        sa.Column("bms_energy_wh", sa.Double(), nullable=True),
        sa.Column("stop_reason", sa.Text(), nullable=True),
        sa.Column("signed_format", sa.Text(), nullable=True),
        sa.Column("signed_data", sa.Text(), nullable=True),
        sa.Column("signed_public_key", sa.Text(), nullable=True),
        sa.Column("content_hash", sa.LargeBinary(), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("session_id", name=op.f("pk_charging_session")),
        sa.UniqueConstraint(
            "operator_id",
            "station_id",
            "session",
            name=op.f("uq_charging_session_operator_id_station_id_session"),
        ),
    )
    op.create_index(
        op.f("ix_charging_session_connector_id_ended_at"),
        "charging_session",
        ["connector_id", "ended_at"],
        unique=False,
    )
    op.create_index(
        op.f("ix_charging_session_ended_at"), "charging_session", ["ended_at"], unique=False
    )
    op.create_index(
        op.f("ix_charging_session_received_at"), "charging_session", ["received_at"], unique=False
    )
    op.create_table(
        "connector",
        sa.Column("connector_id", sa.Integer(), sa.Identity(always=False), nullable=False),
        sa.Column("connector", sa.Text(), nullable=False),
        sa.Column("operator_id", sa.Text(), nullable=False),
        sa.Column("station_id", sa.Text(), nullable=False),
        sa.Column("registered", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column(
            "first_seen_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("pile", sa.Text(), nullable=True),
        sa.Column("current", sa.Text(), nullable=True),
        sa.Column("accuracy_class", sa.Text(), nullable=True),
        sa.Column("rated_power_w", sa.Double(), nullable=True),
        sa.Column("min_current_a", sa.Double(), nullable=True),
        sa.Column("max_current_a", sa.Double(), nullable=True),
        sa.Column("model", sa.Text(), nullable=True),
        sa.Column("manufacturer", sa.Text(), nullable=True),
        sa.Column("serial", sa.Text(), nullable=True),
        sa.Column("resolution_wh", sa.Double(), nullable=True),
        sa.Column("cable_loss_compensated", sa.Boolean(), nullable=True),
        sa.Column("in_service_on", sa.Date(), nullable=True),
        sa.Column("signing_key", sa.Text(), nullable=True),
        sa.CheckConstraint("current IN ('AC', 'DC')", name=op.f("ck_connector_current")),
        sa.PrimaryKeyConstraint("connector_id", name=op.f("pk_connector")),
        sa.UniqueConstraint(
            "connector",
            "operator_id",
            "station_id",
            name=op.f("uq_connector_connector_operator_id_station_id"),
        ),
    )
    op.execute(
        "CREATE INDEX ix_connector_name_prefix ON connector (upper(connector) text_pattern_ops)"
    )
    op.create_index(op.f("ix_connector_operator_id"), "connector", ["operator_id"], unique=False)
    op.create_index(op.f("ix_connector_station_id"), "connector", ["station_id"], unique=False)
    op.create_index(
        "uq_connector_registered",
        "connector",
        ["connector"],
        unique=True,
        postgresql_where="registered",
    )
    op.create_table(
        "connector_interval",
        sa.Column("slot_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("connector_id", sa.Integer(), nullable=False),
        sa.Column("energy_wh", sa.Double(), nullable=False),
        sa.Column("u_wh", sa.REAL(), nullable=False),
        sa.Column("quality", sa.SmallInteger(), nullable=False),
        sa.PrimaryKeyConstraint("connector_id", "slot_at", name=op.f("pk_connector_interval")),
    )
    op.create_table(
        "ingest_session",
        sa.Column("client_id", sa.Text(), nullable=False),
        sa.Column("base", sa.Text(), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("client_id", name=op.f("pk_ingest_session")),
    )
    op.create_table(
        "latest_reading",
        sa.Column("connector_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("energy_wh", sa.Double(), nullable=False),
        sa.Column("power_w", sa.REAL(), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("connector_id", name=op.f("pk_latest_reading")),
        postgresql_with={"fillfactor": 40},
    )
    op.create_table(
        "ledger_stream",
        sa.Column("stream_id", sa.Integer(), sa.Identity(always=False), nullable=False),
        sa.Column("operator_id", sa.Text(), nullable=False),
        sa.Column("station_id", sa.Text(), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("messages", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("received", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("stored", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("duplicate", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("rejected", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("unknown_keys", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column(
            "seen",
            postgresql.INT8MULTIRANGE(),
            server_default=sa.text("'{}'::int8multirange"),
            nullable=False,
        ),
        sa.Column("first_received_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_received_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("stream_id", name=op.f("pk_ledger_stream")),
        sa.UniqueConstraint(
            "operator_id",
            "station_id",
            "topic",
            name=op.f("uq_ledger_stream_operator_id_station_id_topic"),
        ),
    )
    op.create_table(
        "message_ledger",
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("stream_id", sa.Integer(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("stored", sa.Integer(), nullable=False),
        sa.Column("duplicate", sa.Integer(), nullable=False),
        sa.Column("rejected", sa.Integer(), nullable=False),
    )
    op.create_index(
        op.f("ix_message_ledger_stream_id_received_at"),
        "message_ledger",
        ["stream_id", "received_at"],
        unique=False,
    )
    op.create_table(
        "meter_interval",
        sa.Column("slot_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("meter_id", sa.Integer(), nullable=False),
        sa.Column("energy_wh", sa.Double(), nullable=False),
        sa.Column("u_wh", sa.REAL(), nullable=False),
        sa.Column("quality", sa.SmallInteger(), nullable=False),
        sa.PrimaryKeyConstraint("meter_id", "slot_at", name=op.f("pk_meter_interval")),
    )
    op.create_table(
        "operator",
        sa.Column("operator_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("credit_code", sa.Text(), nullable=True),
        sa.Column("contact", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("operator_id", name=op.f("pk_operator")),
    )
    op.create_table(
        "operator_token",
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("operator_id", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("token_hash", name=op.f("pk_operator_token")),
    )
    op.create_index(
        op.f("ix_operator_token_operator_id"), "operator_token", ["operator_id"], unique=False
    )
    op.create_table(
        "quarantine",
        sa.Column("quarantine_id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("operator_id", sa.Text(), nullable=True),
        sa.Column("station_id", sa.Text(), nullable=True),
        sa.Column("seq", sa.BigInteger(), nullable=True),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("item_index", sa.Integer(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("content_type", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("quarantine_id", name=op.f("pk_quarantine")),
    )
    op.create_index(
        op.f("ix_quarantine_code_received_at"), "quarantine", ["code", "received_at"], unique=False
    )
    op.create_index(op.f("ix_quarantine_received_at"), "quarantine", ["received_at"], unique=False)
    op.create_index(
        op.f("ix_quarantine_station_id_received_at"),
        "quarantine",
        ["station_id", "received_at"],
        unique=False,
    )
    op.create_table(
        "reference_meter",
        sa.Column("meter_id", sa.Integer(), sa.Identity(always=False), nullable=False),
        sa.Column("meter", sa.Text(), nullable=False),
        sa.Column("operator_id", sa.Text(), nullable=False),
        sa.Column("station_id", sa.Text(), nullable=False),
        sa.Column("registered", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column(
            "first_seen_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("scope", sa.Text(), nullable=True),
        sa.Column("current", sa.Text(), nullable=True),
        sa.Column("relative_uncertainty", sa.Double(), nullable=True),
        sa.Column("coverage_factor", sa.Double(), nullable=True),
        sa.Column("resolution_wh", sa.Double(), nullable=True),
        sa.Column("certificate", sa.Text(), nullable=True),
        sa.Column("calibrated_on", sa.Date(), nullable=True),
        sa.Column("valid_until", sa.Date(), nullable=True),
        sa.CheckConstraint("current IN ('AC', 'DC')", name=op.f("ck_reference_meter_current")),
        sa.CheckConstraint(
            "scope IN ('station', 'connector')", name=op.f("ck_reference_meter_scope")
        ),
        sa.PrimaryKeyConstraint("meter_id", name=op.f("pk_reference_meter")),
        sa.UniqueConstraint(
            "meter",
            "operator_id",
            "station_id",
            name=op.f("uq_reference_meter_meter_operator_id_station_id"),
        ),
    )
    op.create_index(
        op.f("ix_reference_meter_station_id"), "reference_meter", ["station_id"], unique=False
    )
    op.create_index(
        "uq_reference_meter_registered",
        "reference_meter",
        ["meter"],
        unique=True,
        postgresql_where="registered",
    )
    op.create_table(
        "reference_reading",
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("meter_id", sa.Integer(), nullable=False),
        sa.Column("energy_wh", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("meter_id", "at", name=op.f("pk_reference_reading")),
    )
    op.create_table(
        "register_reading",
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("connector_id", sa.Integer(), nullable=False),
        sa.Column("energy_wh", sa.Double(), nullable=False),
        sa.Column("power_w", sa.REAL(), nullable=False),
        sa.Column("voltage_v", sa.REAL(), nullable=False),
        sa.Column("current_a", sa.REAL(), nullable=False),
        sa.Column("soc_pct", sa.REAL(), nullable=False),
        sa.Column("session_key", sa.BigInteger(), nullable=False),
        sa.Column("context", sa.SmallInteger(), nullable=False),
        sa.PrimaryKeyConstraint("connector_id", "at", name=op.f("pk_register_reading")),
    )
    op.create_table(
        "registry_import",
        sa.Column("import_id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column(
            "imported_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("row_counts", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("import_id", name=op.f("pk_registry_import")),
    )
    op.create_table(
        "retention_horizon",
        sa.Column("table_name", sa.Text(), nullable=False),
        sa.Column("kept_from", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("table_name", name=op.f("pk_retention_horizon")),
    )
    op.create_table(
        "risk_run",
        sa.Column("run_id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("as_of", sa.DateTime(timezone=True), nullable=False),
        sa.Column("data_from", sa.DateTime(timezone=True), nullable=True),
        sa.Column("data_to", sa.DateTime(timezone=True), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("configuration", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("result_digest", sa.Text(), nullable=True),
        sa.Column("summary", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.PrimaryKeyConstraint("run_id", name=op.f("pk_risk_run")),
    )
    op.create_index(op.f("ix_risk_run_as_of"), "risk_run", ["as_of"], unique=False)
    op.create_table(
        "rollup_claimed",
        sa.Column("kind", sa.SmallInteger(), nullable=False),
        sa.Column("instrument_id", sa.Integer(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("claimed_xid", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("kind", "day", "instrument_id", name=op.f("pk_rollup_claimed")),
    )
    op.create_table(
        "rollup_pending",
        sa.Column("kind", sa.SmallInteger(), nullable=False),
        sa.Column("instrument_id", sa.Integer(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.PrimaryKeyConstraint("kind", "day", "instrument_id", name=op.f("pk_rollup_pending")),
    )
    op.create_table(
        "session_name",
        sa.Column("session_key", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("session", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("session_key", name=op.f("pk_session_name")),
    )
    op.create_table(
        "station_status",
        sa.Column("operator_id", sa.Text(), nullable=False),
        sa.Column("station_id", sa.Text(), nullable=False),
        sa.Column("online", sa.Boolean(), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("clock_offset_ms", sa.Double(), nullable=True),
        sa.Column("backlog", sa.BigInteger(), nullable=True),
        sa.Column("firmware", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("operator_id", "station_id", name=op.f("pk_station_status")),
    )
    op.create_table(
        "assessment",
        sa.Column("run_id", sa.BigInteger(), nullable=False),
        sa.Column("connector_id", sa.Integer(), nullable=False),
        sa.Column("relative_error", sa.Double(), nullable=False),
        sa.Column("standard_uncertainty", sa.Double(), nullable=False),
        sa.Column("common_uncertainty", sa.Double(), nullable=False),
        sa.Column("mpe", sa.Double(), nullable=False),
        sa.Column("p_nonconforming", sa.Double(), nullable=False),
        sa.Column("verdict", sa.Text(), nullable=False),
        sa.Column("tier", sa.Text(), nullable=False),
        sa.Column("priority_money", sa.Double(), nullable=False),
        sa.Column("data_from", sa.DateTime(timezone=True), nullable=True),
        sa.Column("data_to", sa.DateTime(timezone=True), nullable=True),
        sa.Column("n_intervals", sa.Integer(), nullable=False),
        sa.Column("n_sessions", sa.Integer(), nullable=False),
        sa.Column("n_vehicles", sa.Integer(), nullable=False),
        sa.Column("n_direct", sa.Integer(), nullable=False),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column("budget", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("drift", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.ForeignKeyConstraint(
            ["connector_id"],
            ["connector.connector_id"],
            name=op.f("fk_assessment_connector_id_connector"),
        ),
        sa.ForeignKeyConstraint(
            ["run_id"], ["risk_run.run_id"], name=op.f("fk_assessment_run_id_risk_run")
        ),
        sa.PrimaryKeyConstraint("run_id", "connector_id", name=op.f("pk_assessment")),
    )
    op.create_index(
        op.f("ix_assessment_connector_id_run_id"),
        "assessment",
        ["connector_id", "run_id"],
        unique=False,
    )
    op.create_index(
        "ix_assessment_error",
        "assessment",
        [
            "run_id",
            sa.literal_column(
                "(abs(NULLIF(relative_error, 'NaN'::double precision))) DESC NULLS LAST"
            ),
            "connector_id",
        ],
        unique=False,
    )
    op.create_index(
        "ix_assessment_money",
        "assessment",
        [
            "run_id",
            sa.literal_column("(NULLIF(priority_money, 'NaN'::double precision)) DESC NULLS LAST"),
            "connector_id",
        ],
        unique=False,
    )
    op.create_index(
        "ix_assessment_probability",
        "assessment",
        [
            "run_id",
            sa.literal_column("(NULLIF(p_nonconforming, 'NaN'::double precision)) DESC NULLS LAST"),
            "connector_id",
        ],
        unique=False,
    )
    op.create_index(
        "ix_assessment_triage",
        "assessment",
        [
            "run_id",
            sa.literal_column(
                "(CASE tier WHEN 'red' THEN 0 WHEN 'orange' THEN 1 WHEN 'yellow' THEN 2 WHEN 'grey' THEN 3 ELSE 4 END)"
            ),
            sa.literal_column("(NULLIF(priority_money, 'NaN'::double precision)) DESC NULLS LAST"),
            "connector_id",
        ],
        unique=False,
    )
    op.create_table(
        "ledger_gap",
        sa.Column("gap_id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("stream_id", sa.Integer(), nullable=False),
        sa.Column("first_seq", sa.BigInteger(), nullable=False),
        sa.Column("last_seq", sa.BigInteger(), nullable=False),
        sa.Column("found_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["stream_id"],
            ["ledger_stream.stream_id"],
            name=op.f("fk_ledger_gap_stream_id_ledger_stream"),
        ),
        sa.PrimaryKeyConstraint("gap_id", name=op.f("pk_ledger_gap")),
    )
    op.create_index(
        "ix_ledger_gap_open",
        "ledger_gap",
        ["stream_id"],
        unique=False,
        postgresql_where=sa.text("closed_at IS NULL"),
    )
    op.create_index(
        op.f("ix_ledger_gap_stream_id_first_seq"),
        "ledger_gap",
        ["stream_id", "first_seq"],
        unique=False,
    )
    op.create_table(
        "login_session",
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"], ["app_user.user_id"], name=op.f("fk_login_session_user_id_app_user")
        ),
        sa.PrimaryKeyConstraint("token_hash", name=op.f("pk_login_session")),
    )
    op.create_index(op.f("ix_login_session_user_id"), "login_session", ["user_id"], unique=False)
    op.create_table(
        "reference_meter_connector",
        sa.Column("meter_id", sa.Integer(), nullable=False),
        sa.Column("connector_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["connector_id"],
            ["connector.connector_id"],
            name=op.f("fk_reference_meter_connector_connector_id_connector"),
        ),
        sa.ForeignKeyConstraint(
            ["meter_id"],
            ["reference_meter.meter_id"],
            name=op.f("fk_reference_meter_connector_meter_id_reference_meter"),
        ),
        sa.PrimaryKeyConstraint(
            "meter_id", "connector_id", name=op.f("pk_reference_meter_connector")
        ),
    )
    op.create_table(
        "registry_history",
        sa.Column("history_id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("import_id", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("identifier", sa.Text(), nullable=False),
        sa.Column(
            "changed_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("before", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("after", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.ForeignKeyConstraint(
            ["import_id"],
            ["registry_import.import_id"],
            name=op.f("fk_registry_history_import_id_registry_import"),
        ),
        sa.PrimaryKeyConstraint("history_id", name=op.f("pk_registry_history")),
    )
    op.create_index(
        op.f("ix_registry_history_kind_identifier_changed_at"),
        "registry_history",
        ["kind", "identifier", "changed_at"],
        unique=False,
    )
    op.create_table(
        "run_state",
        sa.Column("run_id", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["run_id"], ["risk_run.run_id"], name=op.f("fk_run_state_run_id_risk_run")
        ),
        sa.PrimaryKeyConstraint("run_id", "name", name=op.f("pk_run_state")),
    )
    op.create_table(
        "signal",
        sa.Column("signal_id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("severity", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("connector", sa.Text(), nullable=True),
        sa.Column("station_id", sa.Text(), nullable=True),
        sa.Column("operator_id", sa.Text(), nullable=True),
        sa.Column("first_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.Column("limit", sa.Double(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("evidence", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("rule_version", sa.Integer(), nullable=False),
        sa.Column("opened_run", sa.BigInteger(), nullable=False),
        sa.Column("last_run", sa.BigInteger(), nullable=False),
        sa.Column("closed_run", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["closed_run"], ["risk_run.run_id"], name=op.f("fk_signal_closed_run_risk_run")
        ),
        sa.ForeignKeyConstraint(
            ["last_run"], ["risk_run.run_id"], name=op.f("fk_signal_last_run_risk_run")
        ),
        sa.ForeignKeyConstraint(
            ["opened_run"], ["risk_run.run_id"], name=op.f("fk_signal_opened_run_risk_run")
        ),
        sa.PrimaryKeyConstraint("signal_id", name=op.f("pk_signal")),
    )
    op.create_index(op.f("ix_signal_connector"), "signal", ["connector"], unique=False)
    op.create_index(op.f("ix_signal_station_id"), "signal", ["station_id"], unique=False)
    op.create_index(
        "uq_signal_open",
        "signal",
        ["code", "operator_id", "station_id", "subject"],
        unique=True,
        postgresql_where=sa.text("closed_run IS NULL"),
    )
    op.create_table(
        "station",
        sa.Column("station_id", sa.Text(), nullable=False),
        sa.Column("operator_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("district", sa.Text(), nullable=True),
        sa.Column("longitude", sa.Double(), nullable=True),
        sa.Column("latitude", sa.Double(), nullable=True),
        sa.Column("address", sa.Text(), nullable=True),
        sa.Column("opened_on", sa.Date(), nullable=True),
        sa.ForeignKeyConstraint(
            ["operator_id"], ["operator.operator_id"], name=op.f("fk_station_operator_id_operator")
        ),
        sa.PrimaryKeyConstraint("station_id", name=op.f("pk_station")),
    )
    op.create_index(op.f("ix_station_operator_id"), "station", ["operator_id"], unique=False)
    op.create_table(
        "tariff",
        sa.Column("tariff_id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("operator_id", sa.Text(), nullable=False),
        sa.Column("station_id", sa.Text(), server_default="", nullable=False),
        sa.Column("valid_from", sa.DateTime(timezone=True), nullable=False),
        sa.Column("periods", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.ForeignKeyConstraint(
            ["operator_id"], ["operator.operator_id"], name=op.f("fk_tariff_operator_id_operator")
        ),
        sa.PrimaryKeyConstraint("tariff_id", name=op.f("pk_tariff")),
        sa.UniqueConstraint(
            "operator_id",
            "station_id",
            "valid_from",
            name=op.f("uq_tariff_operator_id_station_id_valid_from"),
        ),
    )
    op.create_table(
        "verification",
        sa.Column("verification_id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("connector_id", sa.Integer(), nullable=False),
        sa.Column("verified_on", sa.Date(), nullable=False),
        sa.Column("valid_until", sa.Date(), nullable=True),
        sa.Column("result", sa.Text(), nullable=False),
        sa.Column("relative_error", sa.Double(), nullable=True),
        sa.Column("expanded_uncertainty", sa.Double(), nullable=True),
        sa.Column("coverage_factor", sa.Double(), nullable=True),
        sa.Column("certificate", sa.Text(), server_default="", nullable=False),
        sa.Column("institute", sa.Text(), nullable=True),
        sa.CheckConstraint("result IN ('pass', 'fail')", name=op.f("ck_verification_result")),
        sa.ForeignKeyConstraint(
            ["connector_id"],
            ["connector.connector_id"],
            name=op.f("fk_verification_connector_id_connector"),
        ),
        sa.PrimaryKeyConstraint("verification_id", name=op.f("pk_verification")),
        sa.UniqueConstraint(
            "connector_id",
            "verified_on",
            "certificate",
            name=op.f("uq_verification_connector_id_verified_on_certificate"),
        ),
    )
    make_hypertables()


def downgrade() -> None:
    op.drop_table("verification")
    op.drop_table("tariff")
    op.drop_table("station")
    op.drop_table("signal")
    op.drop_table("run_state")
    op.drop_table("registry_history")
    op.drop_table("reference_meter_connector")
    op.drop_table("login_session")
    op.drop_table("ledger_gap")
    op.drop_table("assessment")
    op.drop_table("station_status")
    op.drop_table("session_name")
    op.drop_table("rollup_pending")
    op.drop_table("rollup_claimed")
    op.drop_table("risk_run")
    op.drop_table("retention_horizon")
    op.drop_table("registry_import")
    op.drop_table("register_reading")
    op.drop_table("reference_reading")
    op.drop_table("reference_meter")
    op.drop_table("quarantine")
    op.drop_table("operator_token")
    op.drop_table("operator")
    op.drop_table("meter_interval")
    op.drop_table("message_ledger")
    op.drop_table("ledger_stream")
    op.drop_table("latest_reading")
    op.drop_table("ingest_session")
    op.drop_table("connector_interval")
    op.drop_table("connector")
    op.drop_table("charging_session")
    op.drop_table("app_user")
