"""Import by upload: every bad row by its place, nothing before the confirmation, exactly that."""

from __future__ import annotations

import copy
import csv
import io
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import openpyxl
import pytest
import xlsxwriter
from registry_case import REGISTRY, fetch

from chargewatch.supervision.instruments import uploads
from web_client import TOKEN_FIELD, Site, open_site

API = "/api/v1/registry"
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"


@pytest.fixture
async def site(database_url: str, run_command: Any, tmp_path: Any) -> AsyncIterator[Site]:
    path = tmp_path / "registry.json"
    path.write_text(json.dumps(REGISTRY))
    done = run_command(
        "registry", "import", str(path), env={"CHARGEWATCH_DATABASE_URL": database_url}
    )
    assert done.returncode == 0, done.stderr
    async with open_site(database_url, seeded=False) as opened:
        await opened.log_in("admin")
        yield opened


async def token_of(site: Site) -> str:
    page = await site.client.get("/registry/import")
    found = TOKEN_FIELD.search(page.text)
    assert found is not None
    return found[1]


async def hand_in(site: Site, name: str, content: bytes) -> Any:
    return await site.client.post(
        "/registry/import",
        data={"form_token": await token_of(site)},
        files={"file": (name, content, "application/octet-stream")},
    )


def hidden(page: str) -> dict[str, str]:
    return dict(re.findall(r'name="(sha256|digest|form_token)" value="([0-9a-f]+)"', page))


def changed() -> dict[str, Any]:
    document = copy.deepcopy(REGISTRY)
    document["connectors"][0]["model"] = "m2"
    document["connectors"].append(
        {"connector": "C2", "station_id": "TJ0001", "current": "DC", "accuracy_class": "2级"}
    )
    document["verifications"].append(
        {"connector": "C2", "verified_on": "2026-01-02", "result": "pass"}
    )
    return document


async def test_what_is_shown_is_what_is_taken_and_nothing_before(site: Site) -> None:
    url = site.settings.database_url
    shown = await hand_in(site, "piles.json", json.dumps(changed()).encode())
    assert shown.status_code == 200, shown.text
    assert "m2" in shown.text
    assert "C2 2026-01-02" in shown.text
    assert await fetch(url, "SELECT model FROM connector") == [{"model": "m"}]
    address = re.search(r'action="(/registry/import/\d+)"', shown.text)
    assert address is not None
    unsaid = await site.client.post(address[1], data=hidden(shown.text) | {"why": " "})
    assert unsaid.status_code == 422
    assert await fetch(url, "SELECT model FROM connector") == [{"model": "m"}]
    done = await site.client.post(address[1], data=hidden(shown.text) | {"why": "yearly list"})
    assert done.status_code == 200, done.text
    # The counts that were shown are those that are told now.
    for told in ("Connectors: 2 read, 1 new, 1 changed", "Verifications: 2 read, 1 new, 0 changed"):
        assert told in done.text
    row = '<th scope="row">Connectors</th><td class="number">2</td><td class="number">1</td>'
    assert row in shown.text
    history = await fetch(
        url, "SELECT h.actor, h.why, i.source FROM registry_history h JOIN registry_import i "
        "USING (import_id) WHERE identifier = 'C2'",
    )  # fmt: skip
    assert [dict(one)["actor"] for one in history] == ["admin"]
    assert history[0]["why"] == "yearly list"
    assert history[0]["source"] == "piles.json"
    again = await hand_in(site, "piles.json", json.dumps(changed()).encode())
    assert "holds all of it already" in again.text


async def test_a_preview_that_is_no_longer_true_is_not_taken(site: Site) -> None:
    header = await site.token("admin")
    content = json.dumps(changed()).encode()
    handed = await site.client.post(
        f"{API}/imports?name=piles.json", headers=header, content=content
    )
    assert handed.status_code == 200, handed.text
    preview = handed.json()
    assert preview["new"] == {"connectors": 1, "verifications": 1}
    confirm = {"sha256": preview["sha256"], "digest": preview["digest"], "why": "x"}
    address = f"{API}/imports/{preview['file_id']}"
    wrong = await site.client.post(address, headers=header, json=confirm | {"sha256": "0" * 64})
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (409, "stale_preview")
    row = (await site.client.get(f"{API}/connectors/TJ0001-03-1", headers=header)).json()
    edit = {"values": {"model": "m3"}, "version": row["version"], "why": "meanwhile"}
    edited = await site.client.patch(f"{API}/connectors/TJ0001-03-1", headers=header, json=edit)
    assert edited.status_code == 200, edited.text
    late = await site.client.post(address, headers=header, json=confirm)
    assert (late.status_code, late.json()["error"]["code"]) == (409, "stale_preview")
    url = site.settings.database_url
    assert await fetch(url, "SELECT model FROM connector") == [{"model": "m3"}]
    missing = await site.client.post(f"{API}/imports/999999", headers=header, json=confirm)
    assert missing.status_code == 404


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("connectors.csv", "connector,station_id,current,accuracy_class\nX,TJ0001,AC,2\n"
         "Y,TJ0001,XX,2\nZ,NOPE,DC,1\n", ["line 3, column current", "must be AC or DC"]),
        ("connectors.csv", "connector,station_id,current,accuracy_class\nZ,NOPE,DC,1\n",
         ["line 2, column station_id", "&#39;NOPE&#39; stands neither"]),
        ("piles.csv", "a,b\n1,2\n", ["is not named after a list"]),
        ("registry.json", "{", ["is not JSON"]),
        ("registry.json", "", ["empty"]),
        ("registry.pdf", "%PDF-1.4\n%%EOF", ["PDF", "give a .json"]),
        ("registry.exe", "MZ", ["registry.exe"]),
        ("registry.xlsx", "not a workbook", ["registry.xlsx"]),
        ("ledger.csv", "出厂编号,产地\n404,天津\n", ["line 2, column serial", "404"]),
        ("ledger.csv", "产地\n天津\n", ["line 2, column connector", "is missing"]),
    ],
)  # fmt: skip
async def test_what_is_wrong_is_told_by_its_place_and_nothing_is_kept(
    site: Site, name: str, content: str, told: list[str]
) -> None:
    page = await hand_in(site, name, content.encode())
    assert page.status_code == 422, page.text
    assert "Nothing was taken" in page.text
    assert any(word in page.text for word in told), page.text[-3000:]
    assert 'action="/registry/import/' not in page.text
    url = site.settings.database_url
    assert await fetch(url, "SELECT file_id FROM office_file") == []


async def test_a_file_that_is_too_large_is_refused_before_it_is_read(site: Site) -> None:
    token = await token_of(site)
    answer = await site.client.post(
        "/registry/import", data={"form_token": token},
        files={"file": ("a.csv", b"x" * 11_000_000, "text/csv")},
    )  # fmt: skip
    assert answer.status_code == 413


def test_a_digest_tells_every_change_apart() -> None:
    empty = uploads.Preview()
    other = uploads.Preview(new={"connectors": 1}, added={"connectors": ["C2"]})
    assert uploads.preview_digest(empty) == uploads.preview_digest(uploads.Preview())
    assert uploads.preview_digest(empty) != uploads.preview_digest(other)


def ledger_of(site_rows: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(site_rows.decode("utf-8-sig"))))


async def test_the_national_ledger_goes_out_and_comes_back_unchanged(site: Site) -> None:
    header = await site.token("admin")
    exported = await site.client.get(f"{API}/ledger-file?form=csv", headers=header)
    [row] = ledger_of(exported.content)
    assert row["编号"] == "TJ0001-03-1"
    assert row["计量器具名称"] == "电动汽车交流充电桩"
    assert (row["出厂编号"], row["制造单位"], row["准确度等级"]) == ("s", "f", "2")
    assert (row["安装使用地点"], row["行政区划代码"], row["数量"]) == ("a", "120104", "1")
    # What an export has filled in says nothing new.
    again = await hand_in(site, "ledger.csv", exported.content)
    assert "holds all of it already" in again.text
    book = await site.client.get(f"{API}/ledger-file?form=xlsx", headers=header)
    sheet = openpyxl.load_workbook(io.BytesIO(book.content))["台账"]
    cells = list(sheet.iter_rows(values_only=True))
    assert dict(zip(cells[0], cells[1], strict=True))["制造单位"] == "f"
    again = await hand_in(site, "book.xlsx", book.content)
    assert again.status_code == 200, again.text
    assert "holds all of it already" in again.text


async def test_a_ledger_of_the_authority_patches_by_serial_and_keeps_its_own_columns(
    site: Site,
) -> None:
    out = io.BytesIO()
    with xlsxwriter.Workbook(out) as book:
        sheet = book.add_worksheet("强检计量器具台账")
        sheet.write_row(0, 0, ["强检计量器具台账"])
        sheet.write_row(
            1, 0, ["出厂编号", "生产厂家", "规格型号", "产地", "用途", "行政区划代码", "备案号"]
        )
        sheet.write_row(2, 0, ["S", "f", "AC-7-2", "天津", "安全防护", "120104001000", "B-77"])
    header = await site.token("admin")
    handed = await site.client.post(
        f"{API}/imports?name=a.xlsx", headers=header, content=out.getvalue()
    )
    assert handed.status_code == 200, handed.text
    preview = handed.json()
    assert (preview["new"], preview["changed"]) == ({"ledger": 1}, {"connectors": 1})
    confirm = {"sha256": preview["sha256"], "digest": preview["digest"], "why": "e-CQS"}
    done = await site.client.post(
        f"{API}/imports/{preview['file_id']}", headers=header, json=confirm
    )
    assert done.status_code == 200, done.text
    assert (done.json()["new"], done.json()["changed"]) == ({"ledger": 1}, {"connectors": 1})
    row = (await site.client.get(f"{API}/ledger/TJ0001-03-1", headers=header)).json()["values"]
    assert row["extra"] == {"备案号": "B-77"}
    assert (row["model"], row["origin"], row["purpose"]) == ("AC-7-2", "天津", "安全防护")
    assert (row["serial"], row["place_code"]) == ("S", "120104001000")
    connector = (await site.client.get(f"{API}/connectors/TJ0001-03-1", headers=header)).json()
    # What the ledger doesn't say stays as it was.
    assert connector["values"]["rated_power_w"] == 7000.0
    exported = await site.client.get(f"{API}/ledger-file?form=csv", headers=header)
    [told] = ledger_of(exported.content)
    assert (told["备案号"], told["产地"], told["型号规格"]) == ("B-77", "天津", "AC-7-2")
    unchanged = await hand_in(site, "ledger.csv", exported.content)
    assert "holds all of it already" in unchanged.text
    # A connectors' list says nothing of the ledger, and leaves it alone.
    whole = (await site.client.get(f"{API}/export", headers=header)).json()
    assert whole["ledger"][0]["extra"] == {"备案号": "B-77"}


@pytest.mark.parametrize("form", ["json", "csv", "xlsx"])
async def test_every_form_of_export_is_read_again_as_the_same(
    site: Site, form: str, run_command: Any, tmp_path: Any
) -> None:
    url = site.settings.database_url
    header = await site.token("admin")
    for values in ({"contact": "=1+1 @x"}, {"contact": "+86 22"}, {"contact": "-"}):
        row = (await site.client.get(f"{API}/operators/OP1", headers=header)).json()
        body = {"values": values, "version": row["version"], "why": "w"}
        await site.client.patch(f"{API}/operators/OP1", headers=header, json=body)
    before = (await site.client.get(f"{API}/export", headers=header)).json()
    exported = await site.client.get(f"{API}/export?form={form}", headers=header)
    path = tmp_path / f"again.{ {'csv': 'zip'}.get(form, form) }"
    path.write_bytes(exported.content)
    told = run_command(
        "registry", "import", str(path), "--json", env={"CHARGEWATCH_DATABASE_URL": url}
    )
    assert told.returncode == 0, told.stderr
    report = json.loads(told.stdout)
    assert (report["new"], report["changed"]) == ({}, {})
    assert (await site.client.get(f"{API}/export", headers=header)).json() == before
