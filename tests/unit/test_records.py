"""Tables, arrays, files, messages and answers hold what `domain` declares of a record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import pytest
from sqlalchemy import Table

from chargewatch.api import models
from chargewatch.domain.assessment import ASSESSMENT_COLUMNS, Assessment
from chargewatch.domain.columns import Column, ValueKind
from chargewatch.domain.session import SESSION_COLUMNS, TOLD_COLUMNS, Session
from chargewatch.runs.exports import ASSESSMENT_SCHEMA, WIDE_ASSESSMENT_SCHEMA
from chargewatch.storage import tables
from chargewatch.wire import payloads
from documents import code, rows, section

OF_THE_PLATFORM = {
    *("session_id", "operator_id", "station_id", "connector_id", "content_hash", "received_at")
}


RECORDS = [
    (Session, SESSION_COLUMNS, tables.charging_session, set(), OF_THE_PLATFORM),
    (
        *(Assessment, ASSESSMENT_COLUMNS, tables.assessment),
        *({"connector", "station_id", "operator_id"}, {"run_id", "connector_id"}),
    ),
]


@pytest.mark.parametrize(("record", "columns", "table", "names", "keys"), RECORDS)
def test_a_table_has_the_columns_of_its_record_and_its_own_keys(
    record: Any, columns: Sequence[Column], table: Table, names: set[str], keys: set[str]
) -> None:
    declared = {column.name: column for column in columns}
    assert list(declared) == [field.name for field in fields(record) if field.name not in names]
    assert set(table.columns.keys()) == declared.keys() | keys
    optional = {field.name for field in fields(record) if "None" in str(field.type)}
    assert {name for name, column in declared.items() if column.optional} == optional
    assert {name for name, column in table.columns.items() if column.nullable} == optional


def test_every_column_of_an_assessment_is_documented_and_where_it_is_shown() -> None:
    documented = {
        name: set(shown.split(", ")) - {""}
        for names, _, shown in rows(section("api.md", "An assessment"))
        for name in code(names)
    }
    wide = set(WIDE_ASSESSMENT_SCHEMA.names) - set(ASSESSMENT_SCHEMA.names)
    assert documented == {
        column.name: {
            place
            for place, shown in (
                ("list", column.in_list),
                ("history", column.in_history),
                ("export", column.in_export),
                ("export with `--wide`", column.name in wide),
            )
            if shown
        }
        for column in ASSESSMENT_COLUMNS
    }
    for model, place in ((models.Pile, "list"), (models.HistoryPoint, "history")):
        assert {name for name in documented if place in documented[name]} == (
            model.model_fields.keys() & documented.keys()
        )
    assert documented.keys() == models.Assessment.model_fields.keys() - {"run_id", "as_of", "rules"}


def test_a_message_tells_what_is_stored() -> None:
    told = payloads.ChargingSession.model_fields
    stored = [column.name for column in TOLD_COLUMNS if column.kind != ValueKind.SIGNED]
    assert list(told) == [*stored, "signed"]
    parts = {f"signed_{part}" for part in payloads.SignedRecord.model_fields}
    assert parts == {column.name for column in SESSION_COLUMNS if column.kind == ValueKind.SIGNED}
    required = {name for name, field in told.items() if field.is_required()}
    assert required == {column.name for column in TOLD_COLUMNS if not column.optional}


def test_an_answer_shows_a_session_without_its_signed_record() -> None:
    shown = set(models.Session.model_fields) - {"received_at", "signed", "signed_checks"}
    hidden = {"signed_data", "signed_public_key"}
    assert shown == {column.name for column in SESSION_COLUMNS} - hidden
