"""What a cell of a registry file means, the same in JSON, CSV and XLSX."""

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from registry_forms import FORMS, GOOD, write

from chargewatch.errors import RegistryFileError
from chargewatch.wire.registry_file import read_registry_file

# list, column, as it stands there, what it means, whether that is told
TAKEN = [
    ("stations", "district", "１２０１０４", "120104", True),
    ("stations", "district", "120104", "120104", False),
    ("stations", "district", 120104, "120104", False),
    ("stations", "district", " 120104 ", "120104", False),
    ("stations", "name", "天津（南开）一站", "天津（南开）一站", False),
    ("stations", "longitude", "117,16", 117.16, True),
    ("stations", "longitude", 117.16, 117.16, False),
    ("stations", "name", '="0012"', "0012", True),
    ("stations", "opened_on", "2024-05-01", date(2024, 5, 1), False),
    ("stations", "opened_on", "2024/5/1", date(2024, 5, 1), True),
    ("stations", "opened_on", "2024-5-1", date(2024, 5, 1), True),
    ("stations", "opened_on", "2024.5.1", date(2024, 5, 1), True),
    ("stations", "opened_on", "2024年5月1日", date(2024, 5, 1), True),
    ("stations", "opened_on", "２０２４年５月１日", date(2024, 5, 1), True),
    ("stations", "opened_on", "20240501", date(2024, 5, 1), True),
    ("stations", "opened_on", 20240501, date(2024, 5, 1), True),
    ("stations", "opened_on", "2024-05-01 00:00:00", date(2024, 5, 1), True),
    ("stations", "opened_on", 45413, date(2024, 5, 1), True),
    ("stations", "opened_on", "45413", date(2024, 5, 1), True),
    ("connectors", "accuracy_class", "2级", "2", True),
    ("connectors", "accuracy_class", "２级", "2", True),
    ("connectors", "accuracy_class", "2 级", "2", True),
    ("connectors", "accuracy_class", "二级", "2", True),
    ("connectors", "accuracy_class", "Class 1", "1", True),
    ("connectors", "accuracy_class", "2.0", "2", True),
    ("connectors", "accuracy_class", "0.5", "0.5", False),
    ("connectors", "accuracy_class", 2, "2", False),
    ("connectors", "accuracy_class", "b级", "B", True),
    ("connectors", "connector", "C1\t", "C1", True),
    ("connectors", "connector", "C1\u00a0", "C1", True),
    ("connectors", "connector", "\u3000C1", "C1", True),
    ("connectors", "connector", "\ufeffC1\u200b", "C1", True),
    ("connectors", "connector", "Ｃ１－２", "C1-2", True),
    ("connectors", "connector", "枪 1", "枪 1", False),
    ("connectors", "connector", "e\u0301", "\u00e9", True),
    ("connectors", "current", "ac", "AC", True),
    ("connectors", "current", "直流", "DC", True),
    ("connectors", "rated_power_w", "7000", 7000.0, False),
    ("connectors", "rated_power_w", "1,234,567", 1234567.0, True),
    ("connectors", "rated_power_w", "7,000.5", 7000.5, True),
    ("connectors", "rated_power_w", "7.000,5", 7000.5, True),
    ("connectors", "rated_power_w", "７０００", 7000.0, True),
    ("connectors", "min_current_a", "0,5", 0.5, True),
    ("connectors", "min_current_a", ".5", 0.5, False),
    ("connectors", "min_current_a", "5e-1", 0.5, False),
    ("connectors", "cable_loss_compensated", "是", True, True),
    ("connectors", "cable_loss_compensated", "否", False, True),
    ("connectors", "cable_loss_compensated", "TRUE", True, False),
    ("connectors", "cable_loss_compensated", True, True, False),
    ("connectors", "cable_loss_compensated", "yes", True, True),
    ("connectors", "cable_loss_compensated", "0", False, True),
    ("connectors", "cable_loss_compensated", 1, True, True),
    ("connectors", "serial", "123456789012345678", "123456789012345678", False),
    ("connectors", "serial", 123456789012345, "123456789012345", False),
    ("connectors", "serial", "", None, False),
    ("connectors", "serial", None, None, False),
    ("connectors", "serial", " \u00a0", None, False),
    ("reference_meters", "relative_uncertainty", "0.2%", 0.002, True),
    ("reference_meters", "relative_uncertainty", "０．２％", 0.002, True),
    ("reference_meters", "scope", "Station", "station", True),
    ("reference_meters", "connectors", "C1;C2", ["C1", "C2"], False),
    ("reference_meters", "connectors", "C1、C2", ["C1", "C2"], False),
    ("reference_meters", "connectors", "C1 C2", ["C1", "C2"], False),
    ("verifications", "relative_error", "−0.0021", -0.0021, True),
    ("verifications", "relative_error", "-0,21%", -0.0021, True),
    ("verifications", "result", "合格", "pass", True),
    ("verifications", "result", "FAIL", "fail", True),
    ("tariffs", "valid_from", "2026-01-01T00:00:00Z", datetime(2026, 1, 1, tzinfo=UTC), False),
    (
        "tariffs",
        "valid_from",
        "2026-01-01 08:00+08:00",
        datetime(2026, 1, 1, tzinfo=UTC),
        False,
    ),
    ("tariffs", "valid_from", 46023, datetime(2025, 12, 31, 16, tzinfo=UTC), True),
    ("tariffs", "valid_from", 46023.5, datetime(2026, 1, 1, 4, tzinfo=UTC), True),
    ("tariffs", "valid_from", "2026/1/1", datetime(2025, 12, 31, 16, tzinfo=UTC), True),
    ("tariffs", "valid_from", "2026-01-01 08:00", datetime(2026, 1, 1, tzinfo=UTC), True),
]

# list, column, as it stands there, what the error says
REFUSED = [
    ("operators", "operator_id", "甲 1", "should match pattern"),
    ("operators", "credit_code", "9.1120E+17", "lost digits"),
    ("operators", "credit_code", "=1+1", "formula"),
    ("operators", "name", "#N/A", "error value"),
    ("operators", "name", "#REF!", "error value"),
    ("operators", "name", "########", "error value"),
    ("operators", "name", True, "not text"),
    ("operators", "name", "x" * 2001, "at most 2000"),
    ("stations", "operator_id", "", "is missing"),
    ("stations", "operator_id", None, "is missing"),
    ("stations", "latitude", "91", "less than or equal to 90"),
    ("stations", "longitude", "#VALUE!", "error value"),
    ("stations", "opened_on", 0, "no date between 1950 and 2100"),
    ("stations", "opened_on", "0", "no date between 1950 and 2100"),
    ("stations", "opened_on", 1714521600, "date"),
    ("stations", "opened_on", 45413.5, "time of the day"),
    ("stations", "opened_on", True, "true or false"),
    ("stations", "opened_on", "5/1/2024", "is not a date"),
    ("stations", "opened_on", "24-5-1", "is not a date"),
    ("stations", "opened_on", "2024-02-30", "not a day of the calendar"),
    ("stations", "opened_on", "2024-05-01 13:00", "more than a date"),
    ("stations", "opened_on", "1714521600", "is not a date"),
    ("stations", "opened_on", "#N/A", "error value"),
    ("stations", "opened_on", "=TODAY()", "formula"),
    ("connectors", "connector", "C\u200b1", "U\\+200B"),
    ("connectors", "connector", "C\u00a01", "U\\+00A0"),
    ("connectors", "connector", "C" * 65, "at most 64"),
    ("connectors", "connector", 123456789012345678, "15 digits"),
    ("connectors", "serial", 1234567890123456, "15 digits"),
    ("connectors", "current", "AD", "must be AC or DC"),
    ("connectors", "rated_power_w", "7,000", "thousands or a decimal comma"),
    ("connectors", "rated_power_w", "7kW", "is not a number"),
    ("connectors", "rated_power_w", "7_000", "is not a number"),
    ("connectors", "rated_power_w", "nan", "is not a number"),
    ("connectors", "rated_power_w", "1e999", "finite"),
    ("connectors", "rated_power_w", "-1", "greater than 0"),
    ("connectors", "rated_power_w", True, "true or false"),
    ("connectors", "rated_power_w", "50%", "is a percentage"),
    ("connectors", "cable_loss_compensated", "maybe", "neither true nor false"),
    ("connectors", "cable_loss_compensated", 2, "neither true nor false"),
    ("connectors", "signing_key", "abcdefg", "no public key"),
    ("reference_meters", "scope", "city", "must be station or connector"),
    ("reference_meters", "connectors", "C1;C1", "stands there twice"),
    ("reference_meters", "relative_uncertainty", "0", "greater than 0"),
    ("verifications", "valid_until", "2024-05-07", "lies before verified_on"),
    ("verifications", "certificate", "证" * 201, "at most 200"),
    ("verifications", "certificate", "9.112E+17", "lost digits"),
    (
        "tariffs",
        "periods",
        '[{"from": "00:00", "to": "24:00", "energy_price": "1e-300"}]',
        "1 energy_price: has more digits than a price",
    ),
    ("verifications", "result", "合 格", "must be pass or fail"),
    ("tariffs", "valid_from", 0, "no date between 1950 and 2100"),
    ("tariffs", "valid_from", "9999-12-31T23:59:59-12:00", "outside the years"),
    ("tariffs", "valid_from", "2026-01-01T25:00:00+08:00", "is not a time"),
    ("tariffs", "valid_from", "2026-01-01+08:00", "is not a time"),
    ("tariffs", "periods", "07:00-22:00 0.5", "not a JSON list"),
    ("tariffs", "periods", "[]", "at least 1 item"),
    ("tariffs", "periods", '[{"from": 0, "to": "24:00", "energy_price": 1}]', "time of the day"),
    (
        "tariffs",
        "periods",
        '[{"from": "00:00", "to": "24:00", "energy_price": 1, "price": 2}]',
        "1 price: Extra inputs",
    ),
    (
        "tariffs",
        "periods",
        '[{"from": "00:00", "from": "01:00", "to": "24:00", "energy_price": 1}]',
        "'from' stands there twice",
    ),
    ("tariffs", "periods", '[{"from": "0:00", "to": "24:00", "energy_price": NaN}]', "NaN"),
]


@pytest.mark.parametrize("form", FORMS)
def test_what_is_certain_is_taken_and_told(tmp_path, form):
    for number, (name, column, given, meaning, is_told) in enumerate(TAKEN):
        folder = tmp_path / str(number)
        folder.mkdir()
        file = read_registry_file(write(form, folder, {name: [GOOD[name] | {column: given}]}))
        case = (form, name, column, given)
        assert getattr(file.rows[name][0].row, column) == meaning, case
        told = [line for line in file.told if f"column {column}:" in line]
        # CSV has text only: what a number there means must be told as of any text.
        assert bool(told) == is_told or (given in (True, 1) and form in {"folder", "zip"}), case


@pytest.mark.parametrize("form", FORMS)
def test_what_is_not_certain_is_named_by_file_line_and_column(tmp_path, form):
    for number, (name, column, given, message) in enumerate(REFUSED):
        if form in {"folder", "zip"} and given in (True, 123456789012345678, 1234567890123456):
            continue  # true is a word there, and digits are kept
        folder = tmp_path / str(number)
        folder.mkdir()
        path = write(form, folder, {name: [GOOD[name] | {column: given}]})
        where = rf"{name}[^,]*, line \d+, column {column}: [^\n]*"
        try:
            with pytest.raises(RegistryFileError, match=f"{where}{message}"):
                read_registry_file(path)
        except BaseException as exc:
            raise AssertionError((form, name, column, given)) from exc


@pytest.mark.parametrize("form", FORMS)
def test_prices_keep_their_digits(tmp_path, form):
    periods = '[{"from": "07:00", "to": "0:00", "energy_price": "0,3500", "service_price": 0.1}]'
    row = (
        read_registry_file(
            write(form, tmp_path, {"tariffs": [GOOD["tariffs"] | {"periods": periods}]})
        )
        .rows["tariffs"][0]
        .row
    )
    assert [period.as_json() for period in row.periods] == [
        {"from": "07:00", "to": "00:00", "energy_price": "0.3500", "service_price": "0.1"}
    ]
    assert row.periods[0].energy_price == Decimal("0.35")


@pytest.mark.parametrize("form", FORMS)
def test_rows_of_every_list_are_counted_by_their_place(tmp_path, form):
    path = write(form, tmp_path, {name: [row] for name, row in GOOD.items()})
    file = read_registry_file(path)
    assert [(source.list, source.rows) for source in file.sources] == [(n, 1) for n in GOOD]
    assert all(name in source.source for name, source in zip(GOOD, file.sources, strict=True))
    assert file.told == ()


@pytest.mark.parametrize("form", FORMS)
def test_unknown_column_is_an_error_that_is_told_once(tmp_path, form):
    rows = [GOOD["connectors"] | {"connector": f"C{n}", "serail": "x"} for n in range(3)]
    with pytest.raises(
        RegistryFileError,
        match=r"serail: is not a column of connectors \(meant "
        r"serial\?\)",
    ) as caught:
        read_registry_file(write(form, tmp_path, {"connectors": rows}))
    assert str(caught.value).count("serail") == 1
    assert "1 error;" in str(caught.value)


@pytest.mark.parametrize("form", FORMS)
def test_column_names_may_differ_in_case_and_blanks(tmp_path, form):
    row = {"Station ID ": "S1", "OPERATOR_ID": "OP1", "ｎａｍｅ": "x"}
    file = read_registry_file(write(form, tmp_path, {"stations": [row]}))
    assert file.rows["stations"][0].row.station_id == "S1"
    assert [line for line in file.told if "'Station ID '" in line]


@pytest.mark.parametrize("form", FORMS)
def test_row_that_stands_twice_names_both_lines(tmp_path, form):
    rows = [GOOD["connectors"], GOOD["connectors"] | {"connector": "C1 "}]
    with pytest.raises(
        RegistryFileError,
        match=r"line \d+, column connector: stands already in "
        r"line \d+",
    ):
        read_registry_file(write(form, tmp_path, {"connectors": rows}))


@pytest.mark.parametrize("form", FORMS)
def test_a_hundred_errors_are_listed_and_all_are_counted(tmp_path, form):
    rows = [GOOD["connectors"] | {"connector": f"C{n}", "current": "?"} for n in range(150)]
    with pytest.raises(RegistryFileError) as caught:
        read_registry_file(write(form, tmp_path, {"connectors": rows}))
    assert "150 errors" in str(caught.value)
    assert str(caught.value).count("must be AC or DC") == 100
    assert "... and 50 more" in str(caught.value)


@pytest.mark.parametrize("form", FORMS)
def test_what_is_told_of_many_rows_is_one_sentence(tmp_path, form):
    rows = [GOOD["connectors"] | {"connector": f"C{n}", "accuracy_class": "2级"} for n in range(50)]
    told = read_registry_file(write(form, tmp_path, {"connectors": rows})).told
    assert len(told) == 1
    assert "50 rows, first in line" in told[0]
    assert "'2级' -> 2" in told[0]
