"""Registry files as they are written: CSV and XLSX that a registry import reads again.

XLSX is written here and not by a library because all that is needed is text and numbers in cells.
Source: ECMA-376, part 1 (SpreadsheetML) and part 2 (packages); RFC 4180.
"""

from __future__ import annotations

import csv
import io
import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

from chargewatch.wire.registry.tables import letters

BYTE_ORDER_MARK = "\ufeff"
"""Lets spreadsheets see that a CSV file is UTF-8."""
_WRITTEN_AT = (1980, 1, 1, 0, 0, 0)
"""Of every member of a zip, so that the same registry gives the same bytes."""
_NO_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
_RELATIONS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006"
_SHEET = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_TYPE = "application/vnd.openxmlformats-officedocument.spreadsheetml"
_HEAD = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'

TableRows = Sequence[Mapping[str, Any]]


def cell_text(value: Any) -> str:
    """Return the text of a cell that an import reads as the value."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ";".join(value)
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


def _csv_cell(value: Any) -> Any:
    """Return a cell; a text that a spreadsheet would compute is quoted as an import undoes it."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    text = cell_text(value)
    if text[:1] not in "=+-@\t\r" or not text:
        return text
    return f"'{text}" if '"' in text else f'="{text}"'


def csv_table(
    columns: Sequence[str], rows: TableRows, headings: Sequence[str] | None = None
) -> bytes:
    """Return a CSV file of rows, in UTF-8 with a mark that says so."""
    out = io.StringIO()
    out.write(BYTE_ORDER_MARK)
    writer = csv.writer(out)
    writer.writerow(columns)
    writer.writerows([_csv_cell(row.get(column)) for column in columns] for row in rows)
    return out.getvalue().encode()


def columns_of(rows: TableRows) -> list[str]:
    """Return the columns of rows, in the order in which they first appear."""
    return list(dict.fromkeys(column for row in rows for column in row))


def zip_of_tables(lists: Mapping[str, TableRows]) -> bytes:
    """Return a zip of CSV files named after lists."""
    return _zip(
        {f"{name}.csv": csv_table(columns_of(rows), rows) for name, rows in lists.items() if rows}
    )


def _zip(members: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name, _WRITTEN_AT), content, zipfile.ZIP_DEFLATED)
    return out.getvalue()


def _cell(reference: str, value: Any) -> str:
    if value is None or value == "":
        return ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f'<c r="{reference}"><v>{value!r}</v></c>'
    text = escape(_NO_XML.sub("", cell_text(value)))
    return f'<c r="{reference}" t="inlineStr"><is><t xml:space="preserve">{text}</t></is></c>'


def _sheet(columns: Sequence[str], headings: Sequence[str], rows: TableRows) -> bytes:
    names = [letters(index) for index in range(len(columns))]
    lines: list[list[Any]] = [list(headings)]
    lines += [[row.get(column) for column in columns] for row in rows]
    out = [f'{_HEAD}<worksheet xmlns="{_SHEET}"><sheetData>']
    for number, line in enumerate(lines, start=1):
        cells = "".join(
            _cell(f"{name}{number}", value) for name, value in zip(names, line, strict=True)
        )
        out.append(f'<row r="{number}">{cells}</row>')
    out.append("</sheetData></worksheet>")
    return "".join(out).encode()


def workbook_of(
    sheets: Mapping[str, TableRows], headings: Mapping[str, Mapping[str, str]] | None = None
) -> bytes:
    """Return a workbook with a sheet for each list that holds something.

    Args:
        sheets: rows by the name of their sheet.
        headings: by sheet, what a column's heading is where it is not its name.
    """
    filled = {name: rows for name, rows in sheets.items() if rows}
    filled = filled or dict(list(sheets.items())[:1])
    parts: dict[str, bytes] = {}
    entries, relations, overrides = [], [], []
    for number, (name, rows) in enumerate(filled.items(), start=1):
        known = (headings or {}).get(name, {})
        columns = list(dict.fromkeys([*known, *columns_of(rows)]))
        part = f"xl/worksheets/sheet{number}.xml"
        parts[part] = _sheet(columns, [known.get(column, column) for column in columns], rows)
        title = escape(name, {'"': "&quot;"})
        entries.append(f'<sheet name="{title}" sheetId="{number}" r:id="rId{number}"/>')
        relations.append(
            f'<Relationship Id="rId{number}" Type="{_RELATIONS}/worksheet" '
            f'Target="worksheets/sheet{number}.xml"/>'
        )
        overrides.append(f'<Override PartName="/{part}" ContentType="{_TYPE}.worksheet+xml"/>')
    whole = {
        "[Content_Types].xml": (
            f'{_HEAD}<Types xmlns="{_PACKAGE}/content-types"><Default Extension="rels" '
            'ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
            '<Default Extension="xml" ContentType="application/xml"/>'
            f'<Override PartName="/xl/workbook.xml" ContentType="{_TYPE}.sheet.main+xml"/>'
            f"{''.join(overrides)}</Types>"
        ),
        "_rels/.rels": (
            f'{_HEAD}<Relationships xmlns="{_PACKAGE}/relationships"><Relationship Id="rId1" '
            f'Type="{_RELATIONS}/officeDocument" Target="xl/workbook.xml"/></Relationships>'
        ),
        "xl/workbook.xml": (
            f'{_HEAD}<workbook xmlns="{_SHEET}" xmlns:r="{_RELATIONS}"><sheets>'
            f"{''.join(entries)}</sheets></workbook>"
        ),
        "xl/_rels/workbook.xml.rels": (
            f'{_HEAD}<Relationships xmlns="{_PACKAGE}/relationships">'
            f"{''.join(relations)}</Relationships>"
        ),
    }
    return _zip({name: text.encode() for name, text in whole.items()} | parts)
