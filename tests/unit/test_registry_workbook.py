"""Workbooks as offices really make them: nothing vanishes, nothing is made up."""

import zipfile
from datetime import date

import openpyxl
import pytest
import xlsxwriter
from openpyxl.worksheet.protection import SheetProtection

from chargewatch.errors import RegistryFileError
from chargewatch.wire.registry import tables
from chargewatch.wire.registry_file import read_registry_file

MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
PACKAGE = "http://schemas.openxmlformats.org/package/2006/relationships"
HEADER = ("connector", "station_id", "current", "accuracy_class", "rated_power_w")


def text_cell(reference, text):
    return f'<c r="{reference}" t="inlineStr"><is><t xml:space="preserve">{text}</t></is></c>'


def row(number, cells, attributes=""):
    body = "".join(
        cell if cell.startswith("<") else text_cell(f"{'ABCDEFGH'[i]}{number}", cell)
        for i, cell in enumerate(cells)
    )
    return f'<row r="{number}" {attributes}>{body}</row>'


def raw_book(
    path, rows, *, name="connectors", before="", after="", doctype="", styles=None, workbook=""
):
    """Write a workbook's XML by hand, as no library would."""
    sheet = (
        f'<?xml version="1.0" encoding="UTF-8"?>{doctype}<worksheet xmlns="{MAIN}">{before}'
        f"<sheetData>{''.join(rows)}</sheetData>{after}</worksheet>"
    )
    parts = {
        "_rels/.rels": f'<Relationships xmlns="{PACKAGE}"><Relationship Id="r1" '
        f'Type="{OFFICE}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{MAIN}" xmlns:r="{OFFICE}">{workbook}<sheets>'
        f'<sheet name="{name}" sheetId="1" r:id="r1"/></sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{PACKAGE}"><Relationship Id="r1" '
        f'Type="{OFFICE}/worksheet" Target="/xl/worksheets/sheet1.xml"/><Relationship Id="r2" '
        f'Type="{OFFICE}/styles" Target="styles.xml"/></Relationships>',
        "xl/worksheets/sheet1.xml": sheet,
    }
    if styles is not None:
        parts["xl/styles.xml"] = styles
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for part, content in parts.items():
            out.writestr(part, content)
    return path


GOOD_ROW = ("C1", "S1", "AC", "2")


def connectors(path):
    return [placed.row for placed in read_registry_file(path).rows["connectors"]]


def refused(path):
    with pytest.raises(RegistryFileError) as caught:
        read_registry_file(path)
    return str(caught.value)


@pytest.mark.parametrize("dimension", ["A1", "A1:A1", "Z99:AA100", "nonsense"])
def test_a_wrong_dimension_costs_no_row(tmp_path, dimension):
    path = raw_book(
        tmp_path / "r.xlsx",
        [row(1, HEADER), row(2, GOOD_ROW)],
        before=f'<dimension ref="{dimension}"/>',
    )
    assert [c.connector for c in connectors(path)] == ["C1"]


def test_rows_and_cells_without_references_are_read_in_their_order(tmp_path):
    bare = "<row>" + "".join(f'<c t="str"><v>{cell}</v></c>' for cell in GOOD_ROW) + "</row>"
    path = raw_book(tmp_path / "r.xlsx", [row(1, HEADER), bare])
    assert connectors(path)[0].accuracy_class == "2"


@pytest.mark.parametrize("stored", ["", "<v>7000</v>"], ids=["no value", "stored value"])
def test_a_formula_is_an_error_with_and_without_a_stored_value(tmp_path, stored):
    formula = f'<c r="E2"><f>7*1000</f>{stored}</c>'
    path = raw_book(tmp_path / "r.xlsx", [row(1, HEADER), row(2, [*GOOD_ROW, formula])])
    message = refused(path)
    assert "r.xlsx: sheet connectors, line 2, column rated_power_w: holds a formula" in message
    assert "=7*1000" in message


def test_a_formula_of_other_writers_is_an_error_too(tmp_path):
    path = tmp_path / "r.xlsx"
    with xlsxwriter.Workbook(path) as book:
        sheet = book.add_worksheet("connectors")
        sheet.write_row(0, 0, HEADER)
        sheet.write_row(1, 0, [*GOOD_ROW, "=A1"])
    assert "column rated_power_w: holds a formula" in refused(path)
    book = openpyxl.Workbook()
    book.active.title = "connectors"
    book.active.append(HEADER)
    book.active.append([*GOOD_ROW, "=SUM(A1:A2)"])
    book.save(path)
    assert "column rated_power_w: holds a formula" in refused(path)


@pytest.mark.parametrize("error", ["#N/A", "#REF!", "#DIV/0!", "#NAME?"])
def test_an_error_value_is_not_stored(tmp_path, error):
    cell = f'<c r="F2" t="e"><v>{error}</v></c>'
    path = raw_book(
        tmp_path / "r.xlsx", [row(1, [*HEADER, "model"]), row(2, [*GOOD_ROW, "7000", cell])]
    )
    assert "column model: is the error value of a spreadsheet" in refused(path)


@pytest.mark.parametrize(
    "number", ["1.23456789012345E+17", "123456789012345680", "9.1120E+17", "0.1234567890123456"]
)
def test_digits_that_a_number_cell_has_lost_are_not_made_up(tmp_path, number):
    path = raw_book(
        tmp_path / "r.xlsx",
        [
            row(1, [*HEADER, "serial"]),
            row(2, [*GOOD_ROW, "7000", f'<c r="F2"><v>{number}</v></c>']),
        ],
    )
    assert "column serial: is a number of more than 15 digits" in refused(path)


def test_number_cells_are_read_by_their_column(tmp_path):
    path = tmp_path / "r.xlsx"
    with xlsxwriter.Workbook(path) as book:
        sheet = book.add_worksheet("stations")
        sheet.write_row(0, 0, ["station_id", "operator_id", "district", "opened_on", "name"])
        day = book.add_format({"num_format": 'yyyy"年"m"月"d"日"'})
        zeros = book.add_format({"num_format": "000000"})
        sheet.write_row(1, 0, [1, 2.0])
        sheet.write_number(1, 2, 1234, zeros)
        sheet.write_datetime(1, 3, date(2024, 5, 1), day)
        sheet.write_number(1, 4, 1.5)
    file = read_registry_file(path)
    station = file.rows["stations"][0].row
    assert (station.station_id, station.operator_id) == ("1", "2")
    assert (station.district, station.name) == ("001234", "1.5")
    assert station.opened_on == date(2024, 5, 1)
    assert any("leading zeros" in told for told in file.told)


@pytest.mark.parametrize("is_1904", [False, True])
def test_dates_of_both_systems_are_the_day_that_the_sheet_shows(tmp_path, is_1904):
    path = tmp_path / "r.xlsx"
    with xlsxwriter.Workbook(path, {"date_1904": is_1904}) as book:
        sheet = book.add_worksheet("stations")
        sheet.write_row(0, 0, ["station_id", "operator_id", "opened_on"])
        sheet.write_row(1, 0, ["S1", "OP1"])
        sheet.write_datetime(1, 2, date(2024, 5, 1), book.add_format({"num_format": 14}))
    file = read_registry_file(path)
    assert file.rows["stations"][0].row.opened_on == date(2024, 5, 1)
    assert file.told == ()


def test_a_date_cell_of_zero_is_no_date(tmp_path):
    path = tmp_path / "r.xlsx"
    with xlsxwriter.Workbook(path) as book:
        sheet = book.add_worksheet("stations")
        sheet.write_row(0, 0, ["station_id", "operator_id", "opened_on"])
        sheet.write_row(1, 0, ["S1", "OP1"])
        sheet.write_number(1, 2, 0, book.add_format({"num_format": 14}))
    assert "line 2, column opened_on: is a number, and no date" in refused(path)


def test_date_and_percent_cells_in_other_columns_are_refused(tmp_path):
    path = tmp_path / "r.xlsx"
    with xlsxwriter.Workbook(path) as book:
        sheet = book.add_worksheet("connectors")
        sheet.write_row(0, 0, [*HEADER, "serial"])
        day, percent = (book.add_format({"num_format": n}) for n in ("yyyy-mm-dd", "0.0%"))
        for line, column, style in ((1, 5, day), (2, 4, day), (3, 4, percent), (4, 5, percent)):
            sheet.write_row(line, 0, [f"C{line}", *GOOD_ROW[1:]])
            sheet.write_number(line, column, 45413, style)
    message = refused(path)
    assert "line 2, column serial: is a date cell" in message
    assert "line 3, column rated_power_w: is a date cell" in message
    assert "line 4, column rated_power_w: is a percent cell" in message
    assert "line 5, column serial: is a percent cell" in message


def test_a_percent_cell_of_a_fraction_is_its_value_and_told(tmp_path):
    path = tmp_path / "r.xlsx"
    with xlsxwriter.Workbook(path) as book:
        sheet = book.add_worksheet("reference_meters")
        sheet.write_row(0, 0, ["meter", "station_id", "scope", "relative_uncertainty"])
        sheet.write_row(1, 0, ["M1", "S1", "station"])
        sheet.write_number(1, 3, 0.02, book.add_format({"num_format": "0%"}))
    file = read_registry_file(path)
    assert file.rows["reference_meters"][0].row.relative_uncertainty == 0.02
    assert "percent cell" in file.told[0]


def test_title_blank_lines_and_blanks_at_the_end_are_no_rows(tmp_path):
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.title = "Connectors"
    sheet["A1"] = "天津市充电桩台账"
    sheet.merge_cells("A1:E1")
    for column, name in enumerate(HEADER, start=1):
        sheet.cell(3, column, f" {name.upper()}")
    for column, value in enumerate(GOOD_ROW, start=1):
        sheet.cell(5, column, value)
    for line in range(6, 40):
        sheet.cell(line, 1, "  ")
        sheet.cell(line, 2, "\u00a0")
    path = tmp_path / "r.xlsx"
    book.save(path)
    file = read_registry_file(path)
    assert [(placed.line, placed.row.connector) for placed in file.rows["connectors"]] == [
        (5, "C1")
    ]
    assert [str(source) for source in file.sources] == [
        "connectors: 1 row from r.xlsx: sheet Connectors"
    ]
    told = "\n".join(file.told)
    assert "read as the list connectors" in told
    assert "line 1: a title above the header: '天津市充电桩台账'" in told


def test_rows_above_the_header_do_not_vanish(tmp_path):
    path = raw_book(tmp_path / "r.xlsx", [row(1, GOOD_ROW), row(2, HEADER), row(3, GOOD_ROW)])
    assert "line 1: stands above the header (line 2)" in refused(path)


def test_a_header_nobody_knows_is_named_once(tmp_path):
    path = raw_book(tmp_path / "r.xlsx", [row(1, ["桩号", "场站"]), row(2, ["C1", "S1"])])
    message = refused(path)
    assert "line 1: no header was found; the first line holds '桩号', '场站'" in message
    assert "1 error" in message


def test_a_missing_column_is_named_once_and_a_cell_without_name_by_its_letter(tmp_path):
    path = raw_book(
        tmp_path / "r.xlsx",
        [row(1, HEADER[:3]), row(2, GOOD_ROW), row(3, ["C2", "S1", "AC"])],
    )
    message = refused(path)
    assert "line 1, column accuracy_class: is missing in the header" in message
    assert "line 2, column D: holds '2', and the header (line 1) has no name there" in message
    assert "2 errors" in message


def test_a_header_in_the_middle_and_a_column_twice_are_errors(tmp_path):
    path = raw_book(tmp_path / "r.xlsx", [row(1, HEADER), row(2, GOOD_ROW), row(3, HEADER)])
    assert "line 3: repeats the header" in refused(path)
    path = raw_book(tmp_path / "r.xlsx", [row(1, [*HEADER, "Current"]), row(2, GOOD_ROW)])
    assert "column F: current stands in the header twice" in refused(path)


def test_merged_cells_of_rows_are_refused_because_the_others_are_empty(tmp_path):
    rows = [row(1, HEADER), row(2, GOOD_ROW), row(3, ["C2", "S1", "AC", "2"])]
    merged = '<mergeCells count="1"><mergeCell ref="B2:B3"/></mergeCells>'
    assert "line 2, column B: the cells B2:B3 are merged" in refused(
        raw_book(tmp_path / "r.xlsx", rows, after=merged)
    )


def test_hidden_sheets_rows_and_columns_are_read_and_told(tmp_path):
    path = tmp_path / "r.xlsx"
    with xlsxwriter.Workbook(path) as book:
        book.add_worksheet("operators").write_row(0, 0, ["operator_id"])
        sheet = book.add_worksheet("connectors")
        sheet.hide()
        sheet.write_row(0, 0, HEADER)
        sheet.write_row(1, 0, GOOD_ROW)
        sheet.set_row(1, None, None, {"hidden": True})
        sheet.set_column(2, 2, None, None, {"hidden": True})
    file = read_registry_file(path)
    assert len(file.rows["connectors"]) == 1
    told = "\n".join(file.told)
    assert "sheet connectors: is hidden, and was read" in told
    assert "1 hidden rows were read" in told
    assert "hidden columns were read" in told


def test_unknown_sheets_are_errors_and_empty_ones_are_told(tmp_path):
    book = openpyxl.Workbook()
    book.active.title = "Sheet1"
    sheet = book.create_sheet("connectors")
    sheet.append(HEADER)
    sheet.append(GOOD_ROW)
    path = tmp_path / "r.xlsx"
    book.save(path)
    assert any("Sheet1: is empty, and no list" in told for told in read_registry_file(path).told)
    book["Sheet1"]["B7"] = "note"
    book.save(path)
    assert "sheet Sheet1: is not named after a list" in refused(path)


def test_two_sheets_of_one_list_are_refused(tmp_path):
    book = openpyxl.Workbook()
    book.active.title = "operators"
    book.create_sheet("Operators ")
    for sheet in book.worksheets:
        sheet.append(["operator_id"])
    path = tmp_path / "r.xlsx"
    book.save(path)
    assert "is a second sheet of operators" in refused(path)


def test_rich_text_phonetics_and_escaped_characters_are_the_text_that_is_seen(tmp_path):
    cell = (
        '<c r="F2" t="inlineStr"><is><r><t>Hai</t></r><r><rPr><b/></rPr><t>he_x0041_</t></r>'
        "<rPh sb='0' eb='1'><t>kana</t></rPh></is></c>"
    )
    path = raw_book(
        tmp_path / "r.xlsx", [row(1, [*HEADER, "model"]), row(2, [*GOOD_ROW, "7000", cell])]
    )
    assert connectors(path)[0].model == "HaiheA"


@pytest.mark.parametrize(
    "styles",
    [
        f'<styleSheet xmlns="{MAIN}"/>',
        f'<styleSheet xmlns="{MAIN}"><fills><fill><patternFill patternType="odd"/></fill></fills>'
        '<cellXfs><xf numFmtId="x" fontId="-4"/></cellXfs></styleSheet>',
        f'<styleSheet xmlns="{MAIN}"><cellStyleXfs count="1"/><dxfs><dxf><font><color rgb="zz"/>'
        "</font></dxf></dxfs></styleSheet>",
        None,
    ],
)
def test_odd_styles_cost_nothing(tmp_path, styles):
    cell = '<c r="E2" s="77"><v>7000</v></c>'
    path = raw_book(tmp_path / "r.xlsx", [row(1, HEADER), row(2, [*GOOD_ROW, cell])], styles=styles)
    assert connectors(path)[0].rated_power_w == 7000


def test_protected_sheet_is_read(tmp_path):
    book = openpyxl.Workbook()
    book.active.title = "connectors"
    book.active.append(HEADER)
    book.active.append(GOOD_ROW)
    book.active.protection = SheetProtection(sheet=True, password="x")
    path = tmp_path / "r.xlsx"
    book.save(path)
    assert len(connectors(path)) == 1


BOMB = "<!DOCTYPE x [<!ENTITY a 'aaaaaaaaaa'>" + "".join(
    f"<!ENTITY a{n} '{f'&a{n - 1};' * 10 if n else '&a;' * 10}'>" for n in range(9)
)


@pytest.mark.parametrize("doctype", [BOMB + "]>", "<!DOCTYPE x SYSTEM 'file:///etc/passwd'>"])
def test_document_types_are_refused(tmp_path, doctype):
    path = raw_book(
        tmp_path / "r.xlsx", [row(1, HEADER), row(2, ["&a8;", *GOOD_ROW[1:]])], doctype=doctype
    )
    assert "declares a document type" in refused(path)


def test_damaged_workbooks_say_where(tmp_path):
    path = tmp_path / "r.xlsx"
    for rows, message in (
        (["<row"], "sheet1.xml: is damaged"),
        (['<row r="99999999"/>'], "has a row '99999999'"),
        (['<row r="1"><c r="ZZZ1"><v>1</v></c></row>'], "has a cell 'ZZZ1'"),
        (['<row r="1"><c r="A1" t="s"><v>5</v></c></row>'], "a cell's text is missing"),
    ):
        assert message in refused(raw_book(path, rows))
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("[Content_Types].xml", "<Types/>")
    assert "its part xl/workbook.xml is missing" in refused(path)


def test_other_office_files_say_what_to_do(tmp_path):
    path = tmp_path / "r.xlsx"
    cases = {
        bytes.fromhex("d0cf11e0a1b11ae1") + b"\0" * 512: "old Excel file (.xls)",
        bytes.fromhex("d0cf11e0a1b11ae1")
        + "EncryptedPackage".encode("utf-16-le"): "protected by a password",
        b"<html><table>": "is not an XLSX workbook",
    }
    for content, message in cases.items():
        path.write_bytes(content)
        assert message in refused(path)
    for parts, message in (
        (["xl/workbook.bin"], ".xlsb"),
        (["mimetype", "content.xml"], "OpenDocument"),
    ):
        with zipfile.ZipFile(path, "w") as out:
            for part in parts:
                out.writestr(part, "x")
        assert message in refused(path)


def test_what_unpacks_to_too_much_stops_in_time(tmp_path, monkeypatch):
    path = raw_book(
        tmp_path / "r.xlsx", [row(1, HEADER), *(row(n, GOOD_ROW) for n in range(2, 5000))]
    )
    assert path.stat().st_size < 100_000
    monkeypatch.setattr(tables.LIMITS, "unpacked_bytes", 200_000)
    assert "holds more than 0 MiB; split the file" in refused(path)
    monkeypatch.undo()
    monkeypatch.setattr(tables.LIMITS, "rows", 1000)
    assert "has more than 1,000 rows" in refused(path)
    monkeypatch.undo()
    monkeypatch.setattr(tables.LIMITS, "cells", 1000)
    assert "has more than 1,000 filled cells" in refused(path)
