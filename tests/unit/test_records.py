"""Tables, arrays, files, messages and answers hold what `domain` declares of a record."""

from __future__ import annotations

from dataclasses import fields

from chargewatch.api import models
from chargewatch.domain.columns import Kind
from chargewatch.domain.session import SESSION_COLUMNS, TOLD_COLUMNS, Session
from chargewatch.storage import tables
from chargewatch.wire import payloads

OF_THE_PLATFORM = {
    *("session_id", "operator_id", "station_id", "connector_id", "content_hash", "received_at")
}


def test_every_field_of_a_session_is_a_column() -> None:
    assert [column.name for column in SESSION_COLUMNS] == [field.name for field in fields(Session)]
    optional = {field.name for field in fields(Session) if "None" in str(field.type)}
    assert {column.name for column in SESSION_COLUMNS if column.optional} == optional


def test_the_table_of_sessions_has_the_columns_of_a_session_and_the_platforms_own() -> None:
    table = tables.charging_session.columns
    assert set(table.keys()) == {c.name for c in SESSION_COLUMNS} | OF_THE_PLATFORM
    nullable = {name for name, column in table.items() if column.nullable}
    assert nullable == {column.name for column in SESSION_COLUMNS if column.optional}


def test_a_message_tells_what_is_stored() -> None:
    told = payloads.ChargingSession.model_fields
    stored = [column.name for column in TOLD_COLUMNS if column.kind != Kind.SIGNED]
    assert list(told) == [*stored, "signed"]
    parts = {f"signed_{part}" for part in payloads.SignedRecord.model_fields}
    assert parts == {column.name for column in SESSION_COLUMNS if column.kind == Kind.SIGNED}
    required = {name for name, field in told.items() if field.is_required()}
    assert required == {column.name for column in TOLD_COLUMNS if not column.optional}


def test_an_answer_shows_a_session_without_its_signed_record() -> None:
    shown = set(models.Session.model_fields) - {"received_at", "signed", "signed_checks"}
    hidden = {"signed_data", "signed_public_key"}
    assert shown == {column.name for column in SESSION_COLUMNS} - hidden
