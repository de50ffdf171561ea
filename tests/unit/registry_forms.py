"""One registry in each form that a registry file may have, for the tests."""

import csv
import io
import json
import zipfile

import openpyxl
import xlsxwriter

FORMS = ("json", "folder", "zip", "openpyxl", "xlsxwriter")

GOOD = {
    "operators": {"operator_id": "OP1", "name": "甲"},
    "stations": {"station_id": "S1", "operator_id": "OP1", "district": "120104"},
    "connectors": {
        "connector": "C1",
        "station_id": "S1",
        "current": "AC",
        "accuracy_class": "2",
    },
    "reference_meters": {
        "meter": "M1",
        "station_id": "S1",
        "scope": "station",
        "relative_uncertainty": "0.002",
    },
    "verifications": {"connector": "C1", "verified_on": "2024-05-08", "result": "pass"},
    "tariffs": {
        "operator_id": "OP1",
        "valid_from": "2026-01-01T00:00:00+08:00",
        "periods": '[{"from": "00:00", "to": "24:00", "energy_price": "0.35"}]',
    },
    "inspectors": {"name": "王", "recused_operators": "OP1"},
    "ledger": {"connector": "C1", "origin": "天津"},
}


def text_of(value):
    """Return a value as a cell of a CSV file holds it."""
    if value is None:
        return ""
    return json.dumps(value) if isinstance(value, bool | list) else str(value)


def csv_text(rows, **dialect):
    """Return rows as CSV; the columns are those of all rows."""
    out = io.StringIO()
    columns = list(dict.fromkeys(column for row in rows for column in row))
    writer = csv.writer(out, **dialect)
    writer.writerow(columns)
    writer.writerows([text_of(row.get(column)) for column in columns] for row in rows)
    return out.getvalue()


def _cell(value):
    return json.dumps(value) if isinstance(value, list) else value


def write(form, folder, lists):
    """Write lists of rows in a form; return the path to import."""
    if form == "json":
        path = folder / "registry.json"
        path.write_text(json.dumps({"version": 1} | lists, ensure_ascii=False, indent=1))
        return path
    if form == "folder":
        path = folder / "lists"
        path.mkdir(exist_ok=True)
        for left in path.iterdir():
            left.unlink()
        for name, rows in lists.items():
            (path / f"{name}.csv").write_text(csv_text(rows), encoding="utf-8", newline="")
        return path
    if form == "zip":
        path = folder / "registry.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
            for name, rows in lists.items():
                out.writestr(f"{name}.csv", csv_text(rows))
        return path
    path = folder / f"{form}.xlsx"
    if form == "openpyxl":
        book = openpyxl.Workbook()
        book.remove(book.active)
        for name, rows in lists.items():
            sheet = book.create_sheet(name)
            columns = list(dict.fromkeys(column for row in rows for column in row))
            sheet.append(columns)
            for line, row in enumerate(rows, start=2):
                for index, column in enumerate(columns, start=1):
                    cell = sheet.cell(line, index, _cell(row.get(column)))
                    if isinstance(row.get(column), str):
                        cell.data_type = "s"  # a text that begins with = is no formula
        book.save(path)
        return path
    options = {"strings_to_formulas": False, "strings_to_urls": False}
    with xlsxwriter.Workbook(path, options) as book:
        for name, rows in lists.items():
            sheet = book.add_worksheet(name)
            columns = list(dict.fromkeys(column for row in rows for column in row))
            sheet.write_row(0, 0, columns)
            for line, row in enumerate(rows, start=1):
                for index, column in enumerate(columns):
                    value = _cell(row.get(column))
                    if isinstance(value, str):
                        sheet.write_string(line, index, value)
                    elif value is not None:
                        sheet.write(line, index, value)
    return path
