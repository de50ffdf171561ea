"""Registry files in the encodings, dialects and packings that are met, and in broken ones."""

import json
import os
import string
import zipfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from registry_forms import FORMS, GOOD, csv_text, write

from chargewatch.errors import RegistryFileError
from chargewatch.wire.registry import tables
from chargewatch.wire.registry_file import read_registry_file

STATIONS = csv_text(
    [{"station_id": "S1", "operator_id": "OP1", "name": "南开一站", "address": "a"}]
)


def refused(path):
    with pytest.raises(RegistryFileError) as caught:
        read_registry_file(path)
    return str(caught.value)


def zipped(path, files, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as out:
        for name, content in files.items():
            out.writestr(zipfile.ZipInfo(name), content, method)
    return path


@pytest.mark.parametrize(
    ("encoding", "told"),
    [
        ("utf-8", ""),
        ("utf-8-sig", ""),
        ("gbk", "read as GB18030 (GBK)"),
        ("gb18030", "read as GB18030 (GBK)"),
        ("utf-16", "read as UTF-16"),
        ("utf-16-le", "read as UTF-16-LE"),
        ("utf-16-be", "read as UTF-16-BE"),
        ("utf-32", "read as UTF-32"),
    ],
)
def test_encodings_are_recognised_and_told(tmp_path, encoding, told):
    document = {"version": 1, "stations": [GOOD["stations"] | {"name": "南开一站"}]}
    as_json = tmp_path / "r.json"
    as_json.write_bytes(json.dumps(document, ensure_ascii=False).encode(encoding))
    as_csv = tmp_path / "stations.csv"
    as_csv.write_bytes(STATIONS.encode(encoding))
    for path in (as_json, as_csv, zipped(tmp_path / "r.zip", {as_csv.name: as_csv.read_bytes()})):
        file = read_registry_file(path)
        assert file.rows["stations"][0].row.name == "南开一站"
        assert any(told in line for line in file.told) if told else file.told == ()


def test_damaged_utf8_is_not_taken_for_chinese(tmp_path):
    path = tmp_path / "stations.csv"
    good = STATIONS.encode()
    path.write_bytes(good.replace("开".encode(), b"\xe5\xbc"))
    assert "stations.csv: is not UTF-8 at byte" in refused(path)
    path.write_bytes(STATIONS.encode("gbk")[:-3] + b"\xff\xff\n")
    assert "nor GB18030" in refused(path)


@pytest.mark.parametrize(
    ("dialect", "told"),
    [
        ({"delimiter": ";"}, "semicolons"),
        ({"delimiter": "\t"}, "tabs"),
        ({"delimiter": "|"}, "bars"),
        ({"quoting": 1}, ""),
        ({"lineterminator": "\n"}, ""),
        ({"lineterminator": "\r"}, ""),
    ],
)
def test_dialects_of_csv_are_recognised_and_told(tmp_path, dialect, told):
    rows = [GOOD["connectors"] | {"connector": f"C{n}", "model": 'a,b;"c"\td|e'} for n in range(3)]
    path = tmp_path / "connectors.csv"
    path.write_text(csv_text(rows, **dialect), encoding="utf-8", newline="")
    file = read_registry_file(path)
    assert [placed.row.model for placed in file.rows["connectors"]] == ['a,b;"c"\td|e'] * 3
    assert [placed.line for placed in file.rows["connectors"]] == [2, 3, 4]
    assert any(told in line for line in file.told) if told else file.told == ()


def test_spreadsheets_hint_empty_lines_and_end_marks_are_no_rows(tmp_path):
    path = tmp_path / "stations.csv"
    body = csv_text([GOOD["stations"]], delimiter=";")
    path.write_bytes(b"sep=;\r\n;;\r\n" + body.encode() + b";;;;\r\n\r\n \xc2\xa0;\r\n\x1a")
    file = read_registry_file(path)
    assert [placed.line for placed in file.rows["stations"]] == [4]


def test_broken_csv_names_its_line(tmp_path):
    path = tmp_path / "stations.csv"
    path.write_text('station_id,operator_id\nS1,"OP1\nS2,OP2\n')
    assert "stations.csv, line 2: unexpected end of data" in refused(path)
    path.write_text("station_id,operator_id\nS1,OP1,more\n")
    assert "stations.csv, line 2, column C: holds 'more'" in refused(path)
    path.write_text("station_id,operator_id\nS1,OP1\nS2," + "x" * 200_000)
    assert "stations.csv, line 3: field larger than field limit" in refused(path)


def test_names_of_files_may_differ_in_case_and_stand_in_folders(tmp_path):
    files = {
        "__MACOSX/._stations.csv": b"\0\5",
        ".DS_Store": b"x",
        "export/Stations.CSV": STATIONS,
        "export\\Reference Meters.csv": csv_text([GOOD["reference_meters"]]),
    }
    file = read_registry_file(zipped(tmp_path / "r.zip", files))
    assert (len(file.rows["stations"]), len(file.rows["reference_meters"])) == (1, 1)
    assert [str(source) for source in file.sources] == [
        "stations: 1 row from export/Stations.CSV",
        "reference_meters: 1 row from export/Reference Meters.csv",
    ]
    told = "\n".join(file.told)
    assert "__MACOSX/._stations.csv was left out" in told
    assert "export/Stations.CSV: read as the list stations" in told
    folder = tmp_path / "lists" / "inner"
    folder.mkdir(parents=True)
    (folder / "Stations.csv").write_text(STATIONS, encoding="utf-8")
    assert len(read_registry_file(tmp_path / "lists").rows["stations"]) == 1


def test_two_files_of_one_list_are_refused(tmp_path):
    files = {"a/stations.csv": STATIONS, "b/stations.csv": STATIONS}
    message = refused(zipped(tmp_path / "r.zip", files))
    assert "b/stations.csv: is a second file of stations, beside a/stations.csv" in message


@pytest.mark.parametrize("name", ["piles.csv", "notes.txt", "stations.csv.bak", "registry.json"])
def test_files_that_are_not_understood_are_errors(tmp_path, name):
    message = refused(zipped(tmp_path / "r.zip", {"stations.csv": STATIONS, name: "x"}))
    assert f"{name} is not a CSV file named after a list" in message
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "stations.csv").write_text(STATIONS, encoding="utf-8")
    (tmp_path / "lists" / name).write_text("x")
    assert f"{name} is not a CSV file named after a list" in refused(tmp_path / "lists")


@pytest.mark.parametrize("name", ["../stations.csv", "/etc/stations.csv", "C:\\x\\stations.csv"])
def test_names_that_point_out_of_a_zip_are_refused(tmp_path, name):
    assert "points out of it" in refused(zipped(tmp_path / "r.zip", {name: STATIONS}))


def patched(path, *, flag=None, method=None):
    """Set a flag or the packing method of a zip's only file, in both of its headers."""
    content = bytearray(path.read_bytes())
    central = content.rindex(b"PK\1\2")
    for offset, value in ((6, flag), (8, method)):
        if value is not None:
            content[offset] = content[central + offset + 2] = value
    path.write_bytes(content)
    return path


def test_odd_zips_say_what_is_odd(tmp_path):
    def fresh(name="r.zip"):
        return zipped(tmp_path / name, {"stations.csv": STATIONS * 50})

    assert "protected by a password" in refused(patched(fresh(), flag=1))
    assert "pack it again as an ordinary zip" in refused(patched(fresh(), method=9))
    path = fresh()
    path.write_bytes(path.read_bytes()[:60])
    assert "is not a zip file, or damaged" in refused(path)
    path = fresh()
    content = bytearray(path.read_bytes())
    content[60] ^= 0xFF
    path.write_bytes(content)
    assert "is not a zip file, or damaged" in refused(path)
    with pytest.warns(UserWarning), zipfile.ZipFile(path, "w") as out:
        out.writestr("stations.csv", STATIONS)
        out.writestr("stations.csv", STATIONS)
    assert "holds 'stations.csv' twice" in refused(path)


def test_zip_that_unpacks_to_too_much_stops_in_time(tmp_path, monkeypatch):
    path = zipped(tmp_path / "r.zip", {"stations.csv": b"\n" * 5_000_000})
    assert path.stat().st_size < 10_000
    monkeypatch.setattr(tables.LIMITS, "unpacked_bytes", 2 * 1024 * 1024)
    assert "r.zip: holds more than 2 MiB" in refused(path)
    monkeypatch.setattr(tables.LIMITS, "members", 3)
    files = {f"{n}.csv": "x" for n in range(4)}
    assert "more than 3 files" in refused(zipped(tmp_path / "r.zip", files))


@pytest.mark.parametrize("name", ["r.json", "r.xlsx", "r.zip", "stations.csv"])
def test_missing_and_empty_files_say_so(tmp_path, name):
    assert "can't be read: No such file" in refused(tmp_path / name)
    (tmp_path / name).write_bytes(b" \n")
    assert f"{name}: is empty" in refused(tmp_path / name)


def test_folder_without_any_list_says_what_it_holds(tmp_path):
    assert "holds none of operators.csv, " in refused(tmp_path)
    (tmp_path / "registry.json").write_text("{}")
    assert "it holds registry.json" in refused(tmp_path)


def test_a_pipe_is_no_registry_file(tmp_path):
    os.mkfifo(tmp_path / "r.json")
    assert "is not a file" in refused(tmp_path / "r.json")
    os.mkfifo(tmp_path / "stations.csv")
    assert "is not a file" in refused(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"version":1,"operators":[],\n"operators":[]}', "line 2: the key 'operators' stands"),
        ('{"version":1,"operators":[],"Operators":[]}', "the list operators stands there twice"),
        ('{"version":1,"version":1}', "the key 'version' stands there twice"),
        (
            '{"version":1,"operators":[\n{"operator_id":"A","operator_id":"B"}]}',
            "operators, line 2: the key 'operator_id' stands there twice",
        ),
        ('{"version":1,"stations":[{"longitude":NaN}]}', "line 1: NaN is not a number"),
        ('{"version":1,"stations":[{"longitude":-Infinity}]}', "-Infinity is not a number"),
        ('{"version":1,"stations":[{"longitude":1e999}]}', "1e999 is not a finite number"),
        ('{"version":1,"stations":[{"longitude":' + "1" * 5000 + "}]}", "number of 5000 digits"),
        ('{"version":1, // note\n"operators":[]}', "line 1, column 15: is not JSON: JSON has no"),
        ('{"version":1,"operators":[{"operator_id":"A"},]}', "is not JSON"),
        ('{"version":1,"operators":[]} {}', "more after the document's end"),
        ('{"version":1,"operators":[]', "is not JSON: expected ',' or '}'"),
        ('{"version":1,"pile":[]}', "column pile: is not a list of a registry file"),
        ('{"version":1,"operators":null}', "column operators: is not a list"),
        ('{"version":1,"operators":["A"]}', "operators holds something not an object"),
        ('{"version":true}', "column version: is True"),
        ('{"version":"1"}', "column version: is '1'"),
        ('{"operators":[]}', "column version: is None"),
        ('{"version":1,"operators":' + "[" * 100_000, "is nested too deeply"),
        ('{"version":1,"operators":[{"operator_id":["A"]}]}', "column operator_id: is not text"),
        ('{"version":1,"operators":[{"operator_id":"A","name":{}}]}', "column name: is not text"),
        (
            '{"version":1,"stations":[{"station_id":"A","operator_id":"A","longitude":[1]}]}',
            "column longitude: is not a number (given: [1])",
        ),
        (
            '{"version":1,"operators":[{"operator_id":"A","name":"\\ud800"}]}',
            "column name: holds the control character U+D800",
        ),
        (
            '{"version":1,"operators":[{"operator_id":"A","name":"a\\u0000b"}]}',
            "column name: holds the control character U+0000",
        ),
        ('{"version":1,"tariffs":[{"operator_id":"A","periods":{}}]}', "column periods"),
    ],
)
def test_json_is_read_strictly(tmp_path, text, message):
    path = tmp_path / "r.json"
    path.write_text(text)
    assert message in refused(path)


def test_sources_are_told_also_when_rows_are_wrong(tmp_path):
    path = write("xlsxwriter", tmp_path, {"connectors": [GOOD["connectors"] | {"current": "?"}]})
    told = []
    with pytest.raises(RegistryFileError):
        read_registry_file(path, on_source=told.append)
    assert [str(source) for source in told] == [
        "connectors: 1 row from xlsxwriter.xlsx: sheet connectors"
    ]


NAMES = st.text(string.ascii_letters + string.digits + "_-", min_size=1, max_size=12)
# Text as people have it: no control characters; CR and blanks at the ends don't survive forms.
TEXTS = st.none() | st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cf", "Cs", "Zl", "Zp", "Co", "Cn")),
    min_size=1,
    max_size=20,
).filter(lambda text: text == text.strip() and text[0] not in "=#")
# One of the two writers keeps 16 digits.
NUMBERS = st.floats(1e-6, 1e6).map(lambda number: float(f"{number:.12g}"))
DAYS = st.dates().filter(lambda day: day.year >= 1950).map(str)


@st.composite
def registries(draw):
    """Return lists of rows such as an export holds."""
    stations = draw(st.lists(NAMES, min_size=1, max_size=3, unique=True))
    connectors = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    return {
        "stations": [
            {
                "station_id": name,
                "operator_id": draw(NAMES),
                "name": draw(TEXTS),
                "longitude": draw(st.integers(-180_000_000, 180_000_000)) / 1e6,
                "opened_on": draw(st.none() | DAYS),
            }
            for name in stations
        ],
        "connectors": [
            {
                "connector": name,
                "station_id": stations[0],
                "current": draw(st.sampled_from(["AC", "DC"])),
                "accuracy_class": draw(st.sampled_from(["1", "2", "A"])),
                "rated_power_w": draw(st.none() | NUMBERS),
                "serial": draw(st.none() | st.text(string.digits, min_size=1, max_size=20)),
                "cable_loss_compensated": draw(st.none() | st.booleans()),
            }
            for name in connectors
        ],
        "reference_meters": [
            {
                "meter": "M",
                "station_id": stations[0],
                "scope": "station",
                "connectors": connectors,
                "relative_uncertainty": draw(NUMBERS),
            }
        ],
    }


def rows_of(file):
    return {name: [placed.row.model_dump() for placed in rows] for name, rows in file.rows.items()}


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(lists=registries())
def test_every_form_holds_the_same_registry(tmp_path, lists):
    read = {form: read_registry_file(write(form, tmp_path, lists)) for form in FORMS}
    for form in FORMS:
        assert rows_of(read[form]) == rows_of(read["json"]), form
    for name, rows in lists.items():
        for given_row, taken in zip(rows, rows_of(read["json"])[name], strict=True):
            for column, value in given_row.items():
                assert str(taken[column]) == str(value), column


GARBAGE = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=30)
    | st.sampled_from(["=1", "#N/A", "1,5", "2024/5/1", "9999-12-31", "0", "04" * 65, "2级", "%"])
)


def without_controls(value):
    """Leave out what a workbook's XML can't hold."""
    if not isinstance(value, str):
        return value
    return "".join(c for c in value if c.isprintable() and ord(c) < 0xFFFE)


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.data())
def test_any_cell_is_taken_or_named(tmp_path, data):
    name = data.draw(st.sampled_from(list(tables.LISTS)))
    columns = list(tables.LISTS[name].model_fields)
    row = GOOD[name] | data.draw(st.dictionaries(st.sampled_from(columns), GARBAGE, max_size=4))
    for form in ("json", "folder", "xlsxwriter"):
        cells = row if form != "xlsxwriter" else {k: without_controls(v) for k, v in row.items()}
        try:
            read_registry_file(write(form, tmp_path, {name: [cells]}))
        except RegistryFileError as exc:
            assert name in str(exc)


@settings(max_examples=100, deadline=None)
@given(
    content=st.binary(max_size=200),
    head=st.sampled_from(
        [b"", b"PK\3\4", b"{", b'{"version":1,"stations":[', b"\xff\xfe", b"a,b\n"]
    ),
    name=st.sampled_from(["r.json", "r.zip", "r.xlsx", "stations.csv", "r.txt"]),
)
def test_random_bytes_raise_nothing_else(tmp_path_factory, content, head, name):
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(head + content)
    with pytest.raises(RegistryFileError):
        read_registry_file(path)


@pytest.fixture(scope="module")
def workbook(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workbook")
    return write("openpyxl", folder, {"connectors": [GOOD["connectors"]]}).read_bytes()


CHANGES = st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=4)


@settings(max_examples=60, deadline=None)
@given(changes=CHANGES)
def test_a_workbook_with_changed_bytes_raises_nothing_else(workbook, tmp_path_factory, changes):
    content = bytearray(workbook)
    for place, value in changes:
        content[int(place * len(content))] = value
    path = tmp_path_factory.getbasetemp() / "changed.xlsx"
    path.write_bytes(content)
    try:
        read_registry_file(path)
    except RegistryFileError as exc:
        assert path.name in str(exc)
