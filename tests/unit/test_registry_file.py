"""Registry files: every format, and bad rows named by file, line and column."""

import io
import json
import zipfile
from datetime import date

import openpyxl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chargewatch.errors import RegistryFileError
from chargewatch.wire.registry_file import read_registry_file

STATIONS = "station_id,operator_id,name,opened_on\nTJ0001,OP1,南开一站,2024-05-01\n"
CONNECTORS = (
    "connector,pile,station_id,current,accuracy_class,rated_power_w,cable_loss_compensated\n"
    "TJ0001-01-1,TJ0001-01,TJ0001,AC,2,7000,false\n"
    "TJ0001-02-1,TJ0001-02,TJ0001,DC,1,120000,\n"
)
METERS = (
    "meter,station_id,scope,connectors,current,relative_uncertainty,coverage_factor\n"
    "M1,TJ0001,station,,AC,0.002,2\nM2,TJ0001,connector,TJ0001-01-1,AC,0.001,2\n"
)


def write_folder(folder):
    (folder / "stations.csv").write_text(STATIONS, encoding="utf-8-sig")
    (folder / "connectors.csv").write_text(CONNECTORS)
    (folder / "reference_meters.csv").write_text(METERS)


def write_workbook(path):
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.title = "connectors"
    sheet.append(["connector", "station_id", "current", "accuracy_class", "in_service_on"])
    sheet.append(["C1", "S1", "AC", 2, date(2024, 5, 1)])
    book.save(path)


def test_folder_of_csv_files_is_read(tmp_path):
    write_folder(tmp_path)
    file = read_registry_file(tmp_path)
    assert [placed.row.connector for placed in file.rows["connectors"]] == [
        "TJ0001-01-1",
        "TJ0001-02-1",
    ]
    assert file.rows["connectors"][1].row.cable_loss_compensated is None
    assert file.rows["reference_meters"][1].row.connectors == ["TJ0001-01-1"]
    assert file.rows["stations"][0].row.name == "南开一站"


def test_zip_of_csv_files_equals_the_folder(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    write_folder(folder)
    archive = tmp_path / "registry.zip"
    with zipfile.ZipFile(archive, "w") as out:
        for path in folder.iterdir():
            out.write(path, f"inner/{path.name}")
    rows = {
        name: [placed.row for placed in placed_rows]
        for name, placed_rows in read_registry_file(folder).rows.items()
    }
    assert rows == {
        name: [placed.row for placed in placed_rows]
        for name, placed_rows in read_registry_file(archive).rows.items()
    }


def test_workbook_cells_may_be_numbers_and_dates(tmp_path):
    path = tmp_path / "registry.xlsx"
    write_workbook(path)
    row = read_registry_file(path).rows["connectors"][0].row
    assert (row.accuracy_class, row.in_service_on.isoformat()) == ("2", "2024-05-01")


def test_bad_csv_cell_is_named_by_file_line_and_column(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "connectors.csv").write_text(CONNECTORS.replace("120000", "strong"))
    with pytest.raises(
        RegistryFileError, match=r"connectors\.csv, line 3, column rated_power_w: .*'strong'"
    ):
        read_registry_file(tmp_path)


def test_bad_json_value_is_named_by_its_line(tmp_path):
    document = {"version": 1, "operators": [{"operator_id": "A"}, {"operator_id": "not allowed!"}]}
    path = tmp_path / "r.json"
    path.write_text(json.dumps(document, indent=1))
    line = path.read_text().splitlines().index('   "operator_id": "not allowed!"')
    with pytest.raises(
        RegistryFileError, match=rf"r\.json: operators, line {line}, column operator_id"
    ):
        read_registry_file(path)


def test_missing_column_is_named(tmp_path):
    path = tmp_path / "r.json"
    path.write_text('{"version": 1, "stations": [{"station_id": "S1"}]}')
    with pytest.raises(RegistryFileError, match="line 1, column operator_id: is missing"):
        read_registry_file(path)


def test_row_that_stands_twice_is_refused(tmp_path):
    path = tmp_path / "r.json"
    path.write_text('{"version":1,"operators":[{"operator_id":"A"},\n{"operator_id":"A"}]}')
    with pytest.raises(RegistryFileError, match="line 2, column operator_id: stands already"):
        read_registry_file(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("r.json", b"{", "r.json, line 1, column 2: is not JSON"),
        ("r.json", b"[]", "a registry file is a JSON object"),
        ("r.json", b'{"version": 2}', "column version: is 2"),
        ("r.json", b'{"version": 1, "stations": {}}', "column stations: is not a list"),
        ("r.json", b'{"version": 1, "stations": [1]}', "line 1: stations holds something"),
        ("r.json", b"\xff", "is not UTF-8"),
        ("r.zip", b"PK", "is not a zip file"),
        ("r.xlsx", b"PK", "is not a zip file"),
        ("r.xlsx", b"x", "is not an XLSX workbook"),
        ("r.txt", b"x", "give a .json, .xlsx or .zip file"),
    ],
)
def test_unreadable_files_say_what_is_wrong(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(RegistryFileError) as caught:
        read_registry_file(path)
    assert message in str(caught.value)


def test_empty_zip_names_the_tables_it_wants(tmp_path):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as out:
        out.writestr("readme.txt", "x")
    path = tmp_path / "r.zip"
    path.write_bytes(content.getvalue())
    with pytest.raises(RegistryFileError, match=r"holds none of operators\.csv"):
        read_registry_file(path)


@given(content=st.binary(max_size=300))
def test_random_bytes_raise_only_registry_file_errors(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("random") / "r.json"
    path.write_bytes(content)
    try:
        read_registry_file(path)
    except RegistryFileError:
        return
    raise AssertionError("random bytes are no registry file")
