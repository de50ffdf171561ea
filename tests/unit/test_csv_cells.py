"""No CSV that leaves the platform holds a formula."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from chargewatch.domain.csv_cell import csv_cell
from chargewatch.runs.exports import ASSESSMENT_SCHEMA, SIGNAL_SCHEMA, as_csv


@pytest.mark.parametrize(
    "text",
    ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", " =1", "\u00a0=1", "＝1", "－1"],
)
def test_text_that_a_spreadsheet_would_compute_is_marked(text: str) -> None:
    assert csv_cell(text) == "'" + text


@pytest.mark.parametrize("value", [-1, -0.031, Decimal("-2.5"), "A-1", "a=b", "", "1+1", True])
def test_numbers_and_other_texts_stay_as_they_are(value: Any) -> None:
    assert csv_cell(value) == value


def test_what_is_not_known_is_empty() -> None:
    assert csv_cell(None) == csv_cell(float("nan")) == ""


@pytest.mark.parametrize("schema", [ASSESSMENT_SCHEMA, SIGNAL_SCHEMA])
def test_exports_of_the_command_line_guard_every_column_of_text(schema: Any) -> None:
    texts = {field.name for field in schema if field.type == "string"}
    row = {
        name: "=cmd|'/c calc'!A1" if name in texts else -1.5 if "_at" not in name else None
        for name in schema.names
    }
    row |= {"as_of": datetime(2026, 1, 1, tzinfo=UTC)} if "as_of" in schema.names else {}
    [written] = csv.DictReader(io.StringIO(as_csv([row], schema).decode()))
    assert texts
    for name in texts:
        assert written[name] == "'=cmd|'/c calc'!A1"
    assert written["relative_error" if "relative_error" in schema.names else "value"] == "-1.5"
