"""The city's database of instruments under mandatory verification."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    Table,
    Text,
    UniqueConstraint,
    false,
    func,
)
from sqlalchemy.dialects.postgresql import JSONB

from chargewatch.storage.tables.base import Timestamp, metadata

operator = Table(
    "operator",
    metadata,
    Column("operator_id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("credit_code", Text),
    Column("contact", Text),
)

station = Table(
    "station",
    metadata,
    Column("station_id", Text, primary_key=True),
    Column("operator_id", Text, ForeignKey("operator.operator_id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("district", Text),
    Column("longitude", Double),
    Column("latitude", Double),
    Column("address", Text),
    Column("opened_on", Date),
    Index(None, "operator_id"),
)

# A connector that nobody registered belongs to the station that sent it: one row a claim, so that
# nobody can fill another station's keys with readings before it is registered.
connector = Table(
    "connector",
    metadata,
    Column("connector_id", Integer, Identity(), primary_key=True),
    Column("connector", Text, nullable=False),
    Column("operator_id", Text, nullable=False),
    Column("station_id", Text, nullable=False),
    Column("registered", Boolean, nullable=False, server_default=false()),
    Column("first_seen_at", Timestamp, nullable=False, server_default=func.now()),
    Column("pile", Text),
    Column("current", Text),
    Column("accuracy_class", Text),
    Column("rated_power_w", Double),
    Column("min_current_a", Double),
    Column("max_current_a", Double),
    Column("model", Text),
    Column("manufacturer", Text),
    Column("serial", Text),
    Column("resolution_wh", Double),
    Column("cable_loss_compensated", Boolean),
    Column("in_service_on", Date),
    Column("signing_key", Text),
    Index(None, "connector", "operator_id", "station_id"),
    # Its own key: ingest never waits for an import that is registering the same connector.
    Index(
        "uq_connector_claim",
        *("connector", "operator_id", "station_id"),
        unique=True,
        postgresql_where="NOT registered",
    ),
    CheckConstraint("current IN ('AC', 'DC')", name="current"),
    Index("uq_connector_registered", "connector", unique=True, postgresql_where="registered"),
    Index(None, "station_id"),
    Index(None, "operator_id"),
    Index(None, "model"),
    Index(None, "manufacturer"),
)

# Search by the beginning of a name, as storage.pages.piles asks for it, or of a serial number.
Index(
    "ix_connector_name_prefix",
    func.upper(connector.c.connector).label("upper_name"),
    postgresql_ops={"upper_name": "text_pattern_ops"},
)
Index(
    "ix_connector_serial_prefix",
    func.upper(connector.c.serial).label("upper_serial"),
    postgresql_ops={"upper_serial": "text_pattern_ops"},
)

reference_meter = Table(
    "reference_meter",
    metadata,
    Column("meter_id", Integer, Identity(), primary_key=True),
    Column("meter", Text, nullable=False),
    Column("operator_id", Text, nullable=False),
    Column("station_id", Text, nullable=False),
    Column("registered", Boolean, nullable=False, server_default=false()),
    Column("first_seen_at", Timestamp, nullable=False, server_default=func.now()),
    Column("scope", Text),
    Column("current", Text),
    Column("relative_uncertainty", Double),
    Column("coverage_factor", Double),
    Column("resolution_wh", Double),
    Column("certificate", Text),
    Column("calibrated_on", Date),
    Column("valid_until", Date),
    Index(None, "meter", "operator_id", "station_id"),
    Index(
        "uq_reference_meter_claim",
        *("meter", "operator_id", "station_id"),
        unique=True,
        postgresql_where="NOT registered",
    ),
    CheckConstraint("scope IN ('station', 'connector')", name="scope"),
    CheckConstraint("current IN ('AC', 'DC')", name="current"),
    Index("uq_reference_meter_registered", "meter", unique=True, postgresql_where="registered"),
    Index(None, "station_id"),
)

# No row for a meter of scope "station" means: all connectors of the station.
reference_meter_connector = Table(
    "reference_meter_connector",
    metadata,
    Column("meter_id", Integer, ForeignKey("reference_meter.meter_id"), primary_key=True),
    Column("connector_id", Integer, ForeignKey("connector.connector_id"), primary_key=True),
)

# Never changed: one that is wrong is withdrawn, with its reason, and another one entered. What is
# below `institute` is null in verifications that came with a registry file.
verification = Table(
    "verification",
    metadata,
    Column("verification_id", BigInteger, Identity(), primary_key=True),
    Column("connector_id", Integer, ForeignKey("connector.connector_id"), nullable=False),
    Column("verified_on", Date, nullable=False),
    Column("valid_until", Date),
    Column("result", Text, nullable=False),
    Column("relative_error", Double),
    Column("expanded_uncertainty", Double),
    Column("coverage_factor", Double),
    Column("certificate", Text, nullable=False, server_default=""),
    Column("institute", Text),
    Column("kind", Text),
    Column("rule_set", Text),
    Column("decision_rule", Text),
    Column("reference", Text),
    Column("note", Text),
    Column("file_id", BigInteger),
    Column("inspection_id", BigInteger),
    Column("case_id", BigInteger),
    Column("entered_at", Timestamp),
    Column("entered_by", Text),
    Column("withdrawn_at", Timestamp),
    Column("withdrawn_by", Text),
    Column("withdrawn_why", Text),
    Index(
        "uq_verification_standing",
        *("connector_id", "verified_on", "certificate"),
        unique=True,
        postgresql_where="withdrawn_at IS NULL",
    ),
    Index(None, "connector_id", "verified_on"),
    Index("ix_verification_entered", "verification_id", postgresql_where="entered_at IS NOT NULL"),
    CheckConstraint("result IN ('pass', 'fail', 'undecided')", name="result"),
    CheckConstraint("kind IN ('initial', 'subsequent', 'inspection', 'complaint')", name="kind"),
)

Index(
    "ix_verification_certificate_prefix",
    func.upper(verification.c.certificate).label("upper_certificate"),
    postgresql_ops={"upper_certificate": "text_pattern_ops"},
)

tariff = Table(
    "tariff",
    metadata,
    Column("tariff_id", BigInteger, Identity(), primary_key=True),
    Column("operator_id", Text, ForeignKey("operator.operator_id"), nullable=False),
    Column("station_id", Text, nullable=False, server_default=""),
    Column("valid_from", Timestamp, nullable=False),
    Column("periods", JSONB, nullable=False),
    UniqueConstraint("operator_id", "station_id", "valid_from"),
)

registry_import = Table(
    "registry_import",
    metadata,
    Column("import_id", BigInteger, Identity(), primary_key=True),
    Column("imported_at", Timestamp, nullable=False, server_default=func.now()),
    Column("source", Text, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("row_counts", JSONB, nullable=False),
    Column("actor", Text, nullable=False),
)

# before: null when the row was new. import_id: null when it was changed by hand.
registry_history = Table(
    "registry_history",
    metadata,
    Column("history_id", BigInteger, Identity(), primary_key=True),
    Column("import_id", BigInteger, ForeignKey("registry_import.import_id")),
    Column("kind", Text, nullable=False),
    Column("identifier", Text, nullable=False),
    Column("changed_at", Timestamp, nullable=False, server_default=func.now()),
    Column("before", JSONB),
    Column("after", JSONB, nullable=False),
    Column("actor", Text, nullable=False, server_default=""),
    Column("why", Text, nullable=False, server_default=""),
    Index(None, "kind", "identifier", "changed_at"),
)
