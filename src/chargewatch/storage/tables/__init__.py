"""Tables of the platform, as SQLAlchemy Core; Alembic makes them from migrations/."""

from chargewatch.storage.tables.audit import audit_checkpoint, audit_entry
from chargewatch.storage.tables.base import metadata
from chargewatch.storage.tables.cases import case_entry, case_year, office_case, office_file
from chargewatch.storage.tables.complaints import complaint, complaint_contact
from chargewatch.storage.tables.credit import (
    credit_draft,
    credit_grade,
    operator_day,
    self_commitment,
)
from chargewatch.storage.tables.evidence import evidence_file, evidence_wanted
from chargewatch.storage.tables.inspections import (
    draw_recusal,
    draw_throw,
    inspection,
    inspection_draw,
)
from chargewatch.storage.tables.instruments import (
    due_step,
    inspector,
    instrument_validity,
    ledger_entry,
)
from chargewatch.storage.tables.jobs import job
from chargewatch.storage.tables.ledger import (
    ingest_session,
    ledger_day,
    ledger_gap,
    ledger_stream,
    message_ledger,
    station_status,
)
from chargewatch.storage.tables.money import money_month, money_owed, money_total
from chargewatch.storage.tables.notices import (
    brief_seen,
    notice,
    notice_mark,
    notice_wish,
    webhook,
)
from chargewatch.storage.tables.quarantine import quarantine, quarantine_day, quarantine_replay
from chargewatch.storage.tables.registry import (
    connector,
    operator,
    reference_meter,
    reference_meter_connector,
    registry_history,
    registry_import,
    station,
    tariff,
    verification,
)
from chargewatch.storage.tables.rollups import (
    connector_interval,
    meter_interval,
    retention_horizon,
    rollup_claimed,
    rollup_pending,
    rollup_version,
)
from chargewatch.storage.tables.runs import assessment, pile_index, risk_run, run_state, signal
from chargewatch.storage.tables.telemetry import (
    charging_session,
    instrument_event,
    latest_reading,
    reference_reading,
    register_reading,
    session_name,
)
from chargewatch.storage.tables.users import (
    api_token,
    app_user,
    login_session,
    operator_token,
)
from chargewatch.storage.tables.verifications import flag_outcome, verification_point

HYPERTABLES = {
    "register_reading": "at",
    "reference_reading": "at",
    "message_ledger": "received_at",
    "connector_interval": "slot_at",
    "meter_interval": "slot_at",
}
"""Tables that TimescaleDB chunks by time, and the column it chunks by."""

CHUNK_INTERVALS = {
    "register_reading": "1 day",
    "reference_reading": "1 day",
    "message_ledger": "1 day",
    "connector_interval": "14 days",
    "meter_interval": "14 days",
}
"""Time that one chunk spans: measured, see docs/decisions/storage-chunks.md."""

__all__ = [
    "CHUNK_INTERVALS",
    "HYPERTABLES",
    "api_token",
    "app_user",
    "assessment",
    "audit_checkpoint",
    "audit_entry",
    "brief_seen",
    "case_entry",
    "case_year",
    "charging_session",
    "complaint",
    "complaint_contact",
    "connector",
    "connector_interval",
    "credit_draft",
    "credit_grade",
    "draw_recusal",
    "draw_throw",
    "due_step",
    "evidence_file",
    "evidence_wanted",
    "flag_outcome",
    "ingest_session",
    "inspection",
    "inspection_draw",
    "inspector",
    "instrument_event",
    "instrument_validity",
    "job",
    "latest_reading",
    "ledger_day",
    "ledger_entry",
    "ledger_gap",
    "ledger_stream",
    "login_session",
    "message_ledger",
    "metadata",
    "meter_interval",
    "money_month",
    "money_owed",
    "money_total",
    "notice",
    "notice_mark",
    "notice_wish",
    "office_case",
    "office_file",
    "operator",
    "operator_day",
    "operator_token",
    "pile_index",
    "quarantine",
    "quarantine_day",
    "quarantine_replay",
    "reference_meter",
    "reference_meter_connector",
    "reference_reading",
    "register_reading",
    "registry_history",
    "registry_import",
    "retention_horizon",
    "risk_run",
    "rollup_claimed",
    "rollup_pending",
    "rollup_version",
    "run_state",
    "self_commitment",
    "session_name",
    "signal",
    "station",
    "station_status",
    "tariff",
    "verification",
    "verification_point",
    "webhook",
]
