"""The pages of cases and what they take: forms, files, hostile ones too, and the command."""

from __future__ import annotations

import io
import json
import re
import struct
import zipfile
import zlib
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from office_case import GREY, RED, TODAY, Office, open_case_site, send_sql

from chargewatch.supervision.files import MOST_FILE_BYTES
from running import RunCommand
from web_client import TOKEN_FIELD, Site

PDF = b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\ntrailer\n<<>>\n%%EOF\n"
HTML = b"<!DOCTYPE html><html><script>alert(1)</script></html>"


def small_png() -> bytes:
    """Return a picture of one pixel."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        whole = kind + content
        return struct.pack(">I", len(content)) + whole + struct.pack(">I", zlib.crc32(whole))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0\xff")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def zip_bomb() -> bytes:
    """Return a workbook of some 300 kB that says it unpacks to 300 MB."""
    kept = io.BytesIO()
    with zipfile.ZipFile(kept, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr("xl/workbook.xml", "<workbook/>")
        for number in range(3):
            archive.writestr(f"xl/worksheets/sheet{number}.xml", bytes(100_000_000))
    return kept.getvalue()


@pytest.fixture
async def site(database_url: str) -> AsyncIterator[Site]:
    async with open_case_site(database_url) as opened:
        opened.client.headers["accept-language"] = "en"
        yield opened


async def form_token(site: Site, path: str) -> str:
    found = TOKEN_FIELD.search((await site.client.get(path)).text)
    assert found is not None
    return found[1]


async def submit(site: Site, path: str, fields: dict[str, Any], **more: Any) -> httpx.Response:
    """Post a form with the token of the page that it stands on."""
    token = await form_token(site, "/cases")
    return await site.client.post(path, data={"form_token": token, **fields}, **more)


async def test_a_case_from_the_page_of_a_pile_to_its_end(site: Site) -> None:
    await site.log_in("wang")
    page = (await site.client.get(f"/piles/{RED}")).text
    assert "No case of this pile." in page and f"{RED}: Red" in page
    place = {"connector": RED, "station_id": "TJ0001", "operator_id": "OP2", "origin": "flag"}
    answer = await submit(site, "/cases", {**place, "title": "reads <b>high</b>"})
    assert answer.status_code == 303
    path = answer.headers["location"]
    page = (await site.client.get(path)).text
    assert "reads &lt;b&gt;high&lt;/b&gt;" in page and "Flagged since" in page
    # Its number stands where the pile does, and the pile can't be ticked again.
    number = path.removeprefix("/cases/")
    for where in (f"/piles/{RED}", "/piles?q=TJ0001-01", "/stations/TJ0001", "/signals"):
        assert number in (await site.client.get(where)).text, where
    assert re.search(rf'value="pile:OP2/TJ0001/{RED}"[^>]* disabled', (
        await site.client.get("/piles?q=TJ0001-01")).text)  # fmt: skip

    async def step(name: str, status: int = 303, **fields: str) -> str:
        answer = await submit(site, f"{path}/steps", {"step": name, **fields})
        assert answer.status_code == status, answer.text
        return answer.text

    await step("assign", owner="li")
    assert "write a reason" in await step("close", 422, outcome="confirmed", why=" ")
    assert "no step" in await step("burn", 422)
    assert "use one of" in await step("close", 422, outcome="guilty", why="x")
    assert "write the day as" in await step("deadline", 422, deadline="soon", why="x")
    kept = await step("inspect", 303)
    assert kept == ""
    assert "is not possible now" in await step("inspect", 409, why="a text that stays")
    await step("close", outcome="confirmed", why="+3.1 % measured", for_operator="yes")
    page = (await site.client.get(path)).text
    assert "closed: confirmed" in page and "open again" in page and "give back" not in page
    assert "All cases of the same thing" in page


async def test_the_operator_reads_replies_and_objects_on_its_page(site: Site) -> None:
    office = Office(site)
    number = await office.open()
    await office.step("wang", number, "assign", owner="li")
    await office.step("li", number, "ask", why="Was the meter replaced?")
    await site.log_in("op2")
    page = (await site.client.get(f"/cases/{number}")).text
    assert "Was the meter replaced?" in page and "the office" in page
    for hidden in ("li</strong>", "wang", "What can be done now", "/steps"):
        assert hidden not in page, hidden
    answer = await submit(
        site, f"/cases/{number}/reply", {"kind": "reply", "text": "Yes."},
        files={"file": ("seal.png", small_png(), "image/png")},
    )  # fmt: skip
    assert answer.status_code == 303, answer.text
    await office.step("wang", number, "close", outcome="confirmed", why="+3 %")
    answer = await submit(
        site, f"/cases/{number}/reply", {"kind": "objection", "text": "No."},
        files={"file": ("", b"", "application/octet-stream")},
    )  # fmt: skip
    assert answer.status_code == 303, answer.text
    case = (await office.get("wang", f"/{number}"))["case"]
    assert (case["state"], case["owner"]) == ("assigned", "li")
    listed = (await site.client.get("/cases")).text
    assert number in listed and 'name="owner"' not in listed and 'type="checkbox" name="number"' \
        not in listed  # fmt: skip


async def test_files_are_downloads_and_stay_as_they_came(site: Site) -> None:
    office = Office(site)
    number = await office.open()
    await site.log_in("li")
    sent = {"certificate.pdf": PDF, '检定 "证书".png': small_png(), "..\\..\\a;b.txt": b"done\n"}
    files = [("file", (name, content, "text/html")) for name, content in sent.items()]
    answer = await submit(site, f"/cases/{number}/entries", {"text": "See @wang"}, files=files)
    assert answer.status_code == 303, answer.text
    entries = (await office.get("li", f"/{number}"))["entries"]
    kept = [entry["file"] for entry in entries if entry["file"]]
    assert [one["media_type"] for one in kept] == ["application/pdf", "image/png", "text/plain"]
    for one, content in zip(kept, sent.values(), strict=True):
        got = await site.client.get(f"/cases/{number}/files/{one['file_id']}")
        assert got.content == content
        assert got.headers["content-disposition"].startswith("attachment; filename=")
        assert got.headers["x-content-type-options"] == "nosniff"
        assert "sandbox" in got.headers["content-security-policy"]
        assert got.headers["content-type"].split(";")[0] == one["media_type"]
    assert kept[2]["name"] == "a;b.txt"
    # Of another case, of no case, and of what the operator is not shown.
    other = await office.open(GREY)
    for path in (f"/cases/{other}/files/1", f"/cases/{number}/files/99", "/cases/x/files/1",
                 f"/cases/{number}/files/{2**70}", f"/cases/{number}/files/-1"):  # fmt: skip
        assert (await site.client.get(path)).status_code == 404, path
    await office.post("li", f"/{number}/comments", {"text": "hello", "for_operator": True})
    await office.get("op2", f"/{number}/files/1", status=404)
    audited = await send_sql(
        site, "SELECT content FROM audit_entry WHERE action = 'case_entry' ORDER BY entry"
    )
    told = json.loads(audited[0]["content"])["detail"]["files"]
    assert [one["sha256"] for one in told] == [one["sha256"] for one in kept]


BOMB = zip_bomb()
HOSTILE = {
    "a page called a picture": (("seal.png", HTML), 422, "page"),
    "a page": (("seal.html", HTML), 422, "page"),
    "a picture with a page behind": (("seal.png", small_png() + HTML), 422, "something follows"),
    "a workbook that blows up": (("points.xlsx", BOMB), 422, "unpacks to more"),
    "a program": (("seal.pdf", b"MZ\x90\0\3" + bytes(200)), 422, "no kind of file"),
    "nothing with a name": (("note.txt", b""), 422, "empty"),
    "a name of dots": (("..", b"text"), 422, "give it a name"),
    "10 MB and one byte": (
        ("note.txt", b"x" * (MOST_FILE_BYTES + 1)), 422, "larger than 10 MB",
    ),
    "12 MB": (("note.txt", b"x" * 12_000_000), 413, "too large"),
}  # fmt: skip


async def test_hostile_files_are_refused_and_nothing_is_kept(site: Site) -> None:
    number = await Office(site).open()
    await site.log_in("li")
    for what, ((name, content), status, words) in HOSTILE.items():
        answer = await submit(
            site, f"/cases/{number}/entries", {"text": "my long text"},
            files={"file": (name, content)},
        )  # fmt: skip
        assert answer.status_code == status, f"{what}: {answer.status_code} {answer.text[:300]}"
        assert words in answer.text, what
        # What was written is not lost with the file.
        assert status == 413 or "my long text" in answer.text, what
    many = [("file", (f"{k}.txt", b"x")) for k in range(6)]
    answer = await submit(site, f"/cases/{number}/entries", {"text": "x"}, files=many)
    assert (answer.status_code, "Too many files" in answer.text) == (400, True)
    token = await form_token(site, "/cases")
    for kind, body in (
        ("multipart/form-data", b"--x\r\n\r\n--x--"),
        ("multipart/form-data; boundary=x", b"--y\r\nnothing\r\n--y--"),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data\r\n\r\na\r\n"),
        ("multipart/form-data; boundary=" + "x" * 5_000, b"x"),
        ("text/plain", b"text=x"),
        ("application/x-www-form-urlencoded", f"form_token={token}&text=x".encode()),
    ):
        answer = await site.client.post(
            f"/cases/{number}/entries", content=body, headers={"content-type": kind}
        )
        assert answer.status_code in (400, 403), f"{kind} {body!r}: {answer.status_code}"
    answer = await site.client.post(
        f"/cases/{number}/entries", data={"text": "x"}, files={"file": ("a.txt", b"x")}
    )
    assert answer.status_code == 403
    left = await send_sql(site, "SELECT (SELECT count(*) FROM office_file) AS files, "
                                "(SELECT count(*) FROM case_entry) AS entries")  # fmt: skip
    assert (left[0]["files"], left[0]["entries"]) == (0, 1)


async def test_files_over_the_api(site: Site) -> None:
    office = Office(site)
    number = await office.open()
    path = f"/api/v1/cases/{number}"

    async def attach(who: str, where: str, content: bytes, status: int) -> httpx.Response:
        answer = await site.client.post(
            f"{path}/{where}", headers=await office.header(who), content=content
        )
        assert answer.status_code == status, answer.text
        return answer

    await attach("li", "files?name=a.pdf", PDF, 200)
    await attach("li", "files?name=b.png", PDF, 422)
    await attach("li", "files", PDF, 422)
    await attach("op2", "reply-files?name=a.pdf", PDF, 404)
    await attach("li", "files?name=c.txt&for_operator=true", b"for you", 200)
    await attach("op2", "reply-files?name=d.txt", b"for you, too", 200)
    await attach("op1", "reply-files?name=d.txt", b"x", 404)
    await attach("op2", "files?name=d.txt", b"x", 403)
    await attach("li", "reply-files?name=d.txt", b"x", 403)
    await attach("li", "files?name=e.txt", b"x" * (MOST_FILE_BYTES + 1), 413)
    shown = (await office.get("op2", f"/{number}"))["entries"]
    assert [entry["file"]["name"] for entry in shown] == ["c.txt", "d.txt"]
    got = await site.client.get(f"{path}/files/2", headers=await office.header("op2"))
    assert got.content == b"for you"
    assert got.headers["content-disposition"].startswith("attachment")
    # Another address takes no more than before.
    answer = await site.client.post(
        f"{path}/comments", headers=await office.header("li"), content=b"x" * 100_000
    )
    assert answer.status_code == 413


async def test_ticked_in_lists(site: Site) -> None:
    await site.log_in("wang")
    names = [f"TJ0001-{k:02d}-1" for k in (1, 2, 3)]
    chosen = [f"pile:OP2/TJ0001/{name}" for name in names] + ["signal:4"]
    day = (TODAY + timedelta(days=9)).isoformat()
    answer = await submit(site, "/cases/open", {"chosen": chosen, "deadline": day})
    assert (answer.status_code, answer.headers["location"]) == (303, "/cases")
    rows = await send_sql(site, "SELECT number, subject, deadline, origin FROM office_case "
                                "ORDER BY case_id")  # fmt: skip
    assert [row["subject"] for row in rows] == [f"connector:{name}" for name in names]
    assert {row["deadline"].isoformat() for row in rows} == {day}
    numbers = [row["number"] for row in rows]
    fields = {"number": numbers, "step": "assign", "owner": "li"}
    answer = await submit(site, "/cases/bulk", fields)
    assert answer.status_code == 200 and "Done for 3." in answer.text
    answer = await submit(site, "/cases/bulk", fields)
    assert "Done for 0." in answer.text and answer.text.count("write a reason") == 3
    for path, fields, status in (
        ("/cases/open", {}, 422),
        ("/cases/open", {"chosen": "pile:OP2"}, 422),
        ("/cases/open", {"chosen": "signal:99999999999999999999"}, 422),
        ("/cases/open", {"chosen": "pile:OP2/TJ0001/NOPE"}, 404),
        ("/cases/bulk", {"step": "assign", "owner": "li"}, 422),
        ("/cases/bulk", {"step": "close", "number": numbers}, 422),
        ("/cases", {"station_id": "NOPE", "operator_id": "OP2"}, 404),
        ("/cases", {"connector": RED, "deadline": "x"}, 422),
    ):
        assert (await submit(site, path, fields)).status_code == status, (path, fields)
    for path in ("/cases", "/cases/open", "/cases/bulk"):
        answer = await site.client.post(path, data={"chosen": chosen, "connector": RED})
        assert answer.status_code == 403, path
    page = (await site.client.get("/cases?overdue=1")).text
    assert "Done" not in page
    for query in ("state=assigned", "owner=li", "operator=OP2", "sort=deadline", "sort=changed"):
        listed = (await site.client.get(f"/cases?{query}")).text
        assert all(number in listed for number in numbers), query
    assert (await site.client.get("/cases?state=x")).status_code == 422


async def test_who_is_nobody_is_told_to_the_writer(site: Site) -> None:
    number = await Office(site).open()
    await site.log_in("li")
    answer = await submit(site, f"/cases/{number}/entries", {"text": "@stranger and @wang"},
                          files={"file": ("", b"")})  # fmt: skip
    assert answer.status_code == 200
    assert "is called @stranger:" in answer.text and "Mentioned: wang" in answer.text


def test_the_command_opens_shows_comments_and_closes(
    database_url: str, run_command: RunCommand, tmp_path: Path
) -> None:
    import asyncio

    async def fill() -> None:
        async with open_case_site(database_url):
            pass

    asyncio.run(fill())
    env = {"CHARGEWATCH_DATABASE_URL": database_url}

    def ask(*words: str, status: int = 0) -> str:
        done = run_command("cases", *words, env=env)
        assert done.returncode == status, done.stderr
        return str(done.stdout if status == 0 else done.stderr)

    number = ask("open", "--pile", RED, "--title", "reads high").strip()
    again = json.loads(ask("open", "--signal", "1", "--json"))
    assert again["number"] == number
    scan = tmp_path / "seal.png"
    scan.write_bytes(small_png())
    ask("comment", number, "--file", str(scan), "seen on site, @wang")
    scan.write_bytes(HTML)
    assert "page" in ask("comment", number, "--file", str(scan), status=1)
    shown = json.loads(ask("show", number, "--json"))
    assert [row["kind"] for row in shown["entries"]] == ["opened", "named_again", "comment", "file"]
    assert shown["entries"][2]["detail"] == {"mentions": ["wang"]}
    assert "seal.png" in ask("show", number)
    assert "write a reason" in ask(
        "close", number, "--outcome", "confirmed", "--why", " ", status=1
    )
    ask("close", number, "--outcome", "confirmed", "--why", "+3.1 %", "--keep-from-operator")
    assert ask("list") == ""
    listed = json.loads(ask("list", "--state", "all", "--operator", "OP2", "--json"))
    assert [(row["number"], row["outcome"], row["shown_at"]) for row in listed] == [
        (number, "confirmed", None)
    ]
    assert "confirmed" in ask("list", "--state", "closed")
    grey = ask("open", "--pile", GREY).strip()
    assert "it is grey" in ask("close", grey, "--outcome", "not_confirmed", "--why", "x", status=1)
    assert "no case '2026-999999'" in ask("show", "2026-999999", status=1)
    ask("open", status=2)
    ask("open", "--pile", RED, "--signal", "1", status=2)
    station = ask("open", "--station", "TJ0001", "--operator", "OP2").strip()
    assert station in ask("list", "--sort", "deadline")
