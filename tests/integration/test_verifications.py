"""Verifications on the API and the pages: judged, kept, withdrawn, linked, scoped."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, text

from chargewatch.storage import tables
from chargewatch.supervision import accounts
from chargewatch.supervision.audit import Actor
from chargewatch.supervision.permissions import Role
from chargewatch.supervision.verifications.certificate_read import read_certificate
from running import RunCommand
from web_client import PASSWORD, TOKEN_FIELD, Site, open_site

OWN, OTHERS = "TJ0002-01-1", "TJ0001-01-1"
TODAY = datetime.now(UTC).date()
REFERENCE = {"name": "R1, cert. 77", "expanded_uncertainty": 0.001}


@pytest.fixture
async def site(database_url: str) -> AsyncIterator[Site]:
    async with open_site(database_url) as opened:
        await accounts.add_user(
            opened.database, "wu", role=Role.INSPECTOR, password=PASSWORD, actor=Actor(name="test")
        )
        yield opened


def asked(connector: str = OWN, *, error: float = 0.005, **values: Any) -> dict[str, Any]:
    """Return a verification with one load that was compared twice."""
    pairs = [{"indicated_wh": 5000 * (1 + error + w), "reference_wh": 5000} for w in (2e-4, -2e-4)]
    return {
        "connector": connector,
        "verified_on": TODAY.isoformat(),
        "kind": "subsequent",
        "certificate": "C-1",
        "reference": REFERENCE,
        "resolution_wh": 1,
        "loads": [{"load": "100 %", "current_a": 32, "repetitions": pairs}],
    } | values


async def enter(site: Site, header: dict[str, str], document: dict[str, Any]) -> Any:
    return await site.client.post("/api/v1/verifications", json=document, headers=header)


async def shown(site: Site, header: dict[str, str], number: int) -> dict[str, Any]:
    answer = await site.client.get(f"/api/v1/verifications/{number}", headers=header)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def until_of(site: Site, connector: str) -> Any:
    async with site.database.connect() as connection:
        found = await connection.execute(
            text(
                "SELECT until, failed FROM instrument_validity JOIN connector USING (connector_id) "
                "WHERE connector = :connector"
            ),
            {"connector": connector},
        )
        return found.first()


async def test_a_verification_is_judged_kept_and_withdrawn(site: Site) -> None:
    header = await site.token("wu")
    answer = await enter(site, header, asked(error=0.05))
    assert answer.status_code == 200, answer.text
    number = answer.json()["verification_id"]
    assert answer.json()["result"] == "fail"
    found = await shown(site, header, number)
    [point] = found["points"]
    assert point["limit"] == 0.02
    assert (point["basis"], point["clause"], point["verdict"]) == ("S2", "5.1", "fail")
    assert found["relative_error"] == pytest.approx(0.05)
    assert found["entered_by"] == "wu"
    assert found["rule_set"] == "CN-2022"
    assert (await until_of(site, OWN)).failed
    again = await enter(site, header, asked(error=0.001))
    assert again.status_code == 422
    assert "withdraw it first" in again.text
    away = f"/api/v1/verifications/{number}/withdraw"
    assert (await site.client.post(away, json={"why": " . "}, headers=header)).status_code == 422
    gone = await site.client.post(away, json={"why": "the wrong pile"}, headers=header)
    assert gone.status_code == 204, gone.text
    assert (await site.client.post(away, json={"why": "again"}, headers=header)).status_code == 422
    assert (await shown(site, header, number))["withdrawn_why"] == "the wrong pile"
    assert not (await until_of(site, OWN)).failed
    right = await enter(site, header, asked(error=0.001))
    assert right.json()["result"] == "pass"
    pile = (await site.client.get(f"/api/v1/piles/{OWN}", headers=header)).json()
    assert number not in [row["verification_id"] for row in pile["verifications"]]
    admin = await site.token("admin")
    trail = await site.client.get(
        "/api/v1/audit", params={"subject": f"connector:{OWN}"}, headers=admin
    )
    actions = [entry["action"] for entry in trail.json()["entries"]]
    assert actions == ["verification_entered", "verification_withdrawn", "verification_entered"]


async def test_an_undecided_one_leaves_validity_as_it_was(site: Site) -> None:
    header = await site.token("wu")
    before = await until_of(site, OWN)
    light = asked(loads=[asked()["loads"][0] | {"current_a": 0.3}])
    answer = await enter(site, header, light)
    assert answer.json()["result"] == "undecided", answer.text
    assert await until_of(site, OWN) == before
    found = await shown(site, header, answer.json()["verification_id"])
    assert found["points"][0]["detail"]["no_limit"] == "no_band"
    assert found["valid_until"] is None
    page = await site.client.get(f"/piles/{OWN}", headers=header)
    assert page.status_code == 200


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"verified_on": "2099-01-01"}, "to today"),
        ({"verified_on": "1999-12-31"}, "to today"),
        ({"connector": "nobody"}, "no connector"),
        ({"loads": []}, "loads"),
        ({"loads": [{"load": "x", "relative_error": 0.01}]}, "expanded"),
        ({"reference": None}, "tell the reference"),
        ({"rule_set": "CN-1900"}, "no rule set"),
        ({"inspection_id": 999}, "no inspection 999"),
        ({"case_id": 999}, "no case 999"),
        ({"certificate": "x" * 201}, "certificate"),
        ({"note": "a\x00"}, "NUL"),
        ({"connector": "\x00"}, "NUL"),
        ({"surprise": 1}, "surprise"),
    ],
)
async def test_what_can_not_be_entered_says_why(
    site: Site, changes: dict[str, Any], words: str
) -> None:
    header = await site.token("wu")
    answer = await enter(site, header, asked() | changes)
    assert answer.status_code in (404, 422), answer.text
    assert words in answer.text
    listed = (await site.client.get("/api/v1/verifications", headers=header)).json()
    assert listed == {"verifications": [], "next_before": None}


async def test_an_operator_sees_its_own_and_enters_none(site: Site) -> None:
    wu, op1, op2 = [await site.token(name) for name in ("wu", "op1", "op2")]
    own = (await enter(site, wu, asked(OWN))).json()["verification_id"]
    others = (await enter(site, wu, asked(OTHERS))).json()["verification_id"]
    assert (await enter(site, op1, asked(OWN))).status_code == 403
    for part in ("", "/dcc.xml"):
        for number, header, status in ((own, op1, 200), (others, op1, 404), (others, op2, 200)):
            path = f"/api/v1/verifications/{number}{part}"
            assert (await site.client.get(path, headers=header)).status_code == status
            page = await site.client.get(f"/verifications/{number}{part}", headers=header)
            assert page.status_code == status
    listed = (await site.client.get("/api/v1/verifications", headers=op1)).json()["verifications"]
    assert [row["verification_id"] for row in listed] == [own]
    away = f"/api/v1/verifications/{own}/withdraw"
    refused = await site.client.post(away, json={"why": "we like it not"}, headers=op1)
    assert refused.status_code == 403


async def test_the_form_takes_what_a_phone_sends(site: Site) -> None:
    not_yours = await site.client.get(
        "/verifications/new", params={"connector": OTHERS}, headers=await site.token("op1")
    )
    assert "enctype" not in not_yours.text
    assert OTHERS not in not_yours.text.split("<main")[1]
    await site.log_in("wu")
    asked_first = await site.client.get("/verifications/new")
    assert 'name="connector"' in asked_first.text
    form = await site.client.get("/verifications/new", params={"connector": OWN})
    token = TOKEN_FIELD.search(form.text)
    assert token is not None
    fields = {
        "form_token": token[1], "connector": OWN, "verified_on": TODAY.isoformat(),
        "kind": "inspection", "reference_u": "0,1", "reference_k": "2", "resolution": "1",
        "load_1": "100 %", "current_1": "３２", "indicated_1_1": "5,02", "reference_1_1": "5",
        "indicated_1_2": "5.021", "reference_1_2": "5.0", "certificate": "C-<7>",
    }  # fmt: skip
    half = {name: value for name, value in fields.items() if name != "reference_1_2"}
    kept = await site.client.post("/verifications", data=half, files={"file": ("", b"")})
    assert kept.status_code == 422
    assert 'value="C-&lt;7&gt;"' in kept.text
    pdf = ("certificate.pdf", b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\ntrailer\n<<>>\n%%EOF\n")
    done = await site.client.post("/verifications", data=fields, files={"file": pdf})
    assert done.status_code == 303, done.text
    page = await site.client.get(done.headers["location"])
    assert "C-&lt;7&gt;" in page.text
    file = await site.client.get(done.headers["location"] + "/file")
    assert file.content == pdf[1]
    assert "attachment" in file.headers["content-disposition"]
    certificate = await site.client.get(done.headers["location"] + "/dcc.xml")
    read = read_certificate(certificate.content)
    assert read.points[0].relative_error == pytest.approx(0.0041)
    for language in ("zh", "en"):
        for path in (done.headers["location"], "/verifications", "/verifications/new"):
            shown_page = await site.client.get(path, headers={"accept-language": language})
            assert shown_page.status_code == 200


async def test_a_certificate_alone_is_enough_and_a_hostile_one_is_refused(site: Site) -> None:
    wu = await site.token("wu")
    number = (await enter(site, wu, asked(OTHERS, error=0.004))).json()["verification_id"]
    xml = (await site.client.get(f"/api/v1/verifications/{number}/dcc.xml", headers=wu)).content
    await site.log_in("wu")
    form = await site.client.get("/verifications/new", params={"connector": OWN})
    token = TOKEN_FIELD.search(form.text)
    assert token is not None
    fields = {
        "form_token": token[1], "connector": OWN, "verified_on": TODAY.isoformat(),
        "kind": "subsequent",
    }  # fmt: skip
    hostile = b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><x>&e;</x>'
    for content, status in ((hostile, 422), (xml, 303)):
        answer = await site.client.post(
            "/verifications", data=fields, files={"file": ("c.xml", content)}
        )
        assert answer.status_code == status, answer.text
    found = await shown(site, wu, int(answer.headers["location"].rpartition("/")[2]))
    assert found["certificate"] == "C-1"
    assert found["points"][0]["relative_error"] == pytest.approx(0.004)


async def test_changes_are_declared_by_the_office_and_by_operators(site: Site) -> None:
    wu, op1 = await site.token("wu"), await site.token("op1")
    at = (datetime.now(UTC) - timedelta(hours=2)).isoformat()
    path, document = f"/api/v1/piles/{OWN}/changes", {"kind": "meter_replaced", "at": at}
    first = await site.client.post(path, json=document | {"serial": "N7"}, headers=op1)
    assert first.status_code == 200, first.text
    event = first.json()["event_id"]
    assert (await site.client.post(path, json=document, headers=wu)).status_code == 422
    seal = await site.client.post(path, json={"kind": "seal_opened", "at": at}, headers=wu)
    listed = (await site.client.get(path, headers=op1)).json()["changes"]
    by_hand = [row for row in listed if row["origin"] != "topic"]
    assert {(row["kind"], row["origin"], row["declared_by"]) for row in by_hand} == {
        ("meter_replaced", "operator", "op1"),
        ("seal_opened", "office", "wu"),
    }
    foreign = f"/api/v1/piles/{OTHERS}/changes"
    assert (await site.client.post(foreign, json=document, headers=op1)).status_code == 404
    withdraw = "/api/v1/changes/{}/withdraw"
    why = {"why": "the wrong day"}
    of_office = withdraw.format(seal.json()["event_id"])
    assert (await site.client.post(of_office, json=why, headers=op1)).status_code == 422
    op2 = await site.token("op2")
    own = withdraw.format(event)
    assert (await site.client.post(own, json=why, headers=op2)).status_code == 404
    assert (await site.client.post(own, json=why, headers=op1)).status_code == 204
    assert (await site.client.post(own, json=why, headers=op1)).status_code == 422
    once_more = await site.client.post(path, json=document, headers=wu)
    assert once_more.status_code == 200
    for bad in ({"kind": "painted"}, {"at": "2999-01-01T00:00:00Z"}, {"at": "2026-01-01T00:00:00"}):
        assert (await site.client.post(path, json=document | bad, headers=wu)).status_code == 422


async def test_the_page_declares_and_withdraws(site: Site) -> None:
    await site.log_in("op1")
    page = await site.client.get(f"/piles/{OWN}")
    token = TOKEN_FIELD.search(page.text)
    assert token is not None
    local = (datetime.now(UTC) + timedelta(hours=6)).strftime("%Y-%m-%dT%H:%M")  # Shanghai
    fields = {
        "form_token": token[1], "kind": "cable_replaced", "at": local, "stop_wh": "1.5",
        "detail": "new <cable>",
    }  # fmt: skip
    done = await site.client.post(f"/piles/{OWN}/changes", data=fields)
    assert done.status_code == 303, done.text
    after = await site.client.get(f"/piles/{OWN}")
    assert "new &lt;cable&gt;" in after.text
    async with site.database.connect() as connection:
        found = await connection.execute(
            text("SELECT event_id, stop_wh, at FROM instrument_event WHERE origin = 'operator'")
        )
        row = found.one()
    assert row.stop_wh == 1500
    assert abs(row.at - (datetime.now(UTC) - timedelta(hours=2))) < timedelta(minutes=2)
    gone = await site.client.post(
        f"/changes/{row.event_id}/withdraw", data={"form_token": token[1], "why": "not done"}
    )
    assert gone.status_code == 303
    assert "not done" in (await site.client.get(f"/piles/{OWN}")).text


async def test_odd_numbers_and_pages_are_refused(site: Site) -> None:
    header = await site.token("wu")
    huge = 10**30
    for path in (
        f"/api/v1/verifications/{huge}",
        f"/api/v1/verifications/{huge}/dcc.xml",
        "/api/v1/verifications/0",
        "/api/v1/verifications/-1",
        f"/verifications/{huge}",
        "/verifications/x/file",
        "/api/v1/outcomes?outcome=maybe",
        "/api/v1/outcomes?before=0001-01-01T00:00:00Z~1",
        f"/api/v1/outcomes?before=2026-01-01T00:00:00Z~{huge}",
        "/api/v1/outcomes?before=2026-01-01T00:00:00~1",
        "/outcomes?before=yesterday",
    ):
        answer = await site.client.get(path, headers=header)
        assert answer.status_code in (404, 422), (path, answer.status_code)
    for path in (f"/api/v1/verifications/{huge}/withdraw", f"/api/v1/changes/{huge}/withdraw"):
        answer = await site.client.post(path, json={"why": "because"}, headers=header)
        assert answer.status_code == 422, path
    not_json = asked(error=0.0)
    not_json["loads"][0] |= {"repetitions": [], "relative_error": "NaN", "expanded_uncertainty": 1}
    assert (await enter(site, header, not_json)).status_code == 422


async def test_an_inspection_must_be_of_the_pile(site: Site) -> None:
    header = await site.token("wu")
    values = {
        "connector": OWN, "station_id": "TJ0002", "operator_id": "OP1", "inspector": "wu",
        "crew": ["wu"], "part": "case", "planned_at": datetime.now(UTC), "due_on": TODAY,
        "state": "planned",
    }  # fmt: skip
    async with site.database.begin() as connection:
        [number] = (
            await connection.execute(
                insert(tables.inspection)
                .values(values)
                .returning(tables.inspection.c.inspection_id)
            )
        ).one()
    wrong = await enter(site, header, asked(OTHERS, inspection_id=number))
    assert wrong.status_code == 422
    assert "not of" in wrong.text
    right = await enter(site, header, asked(OWN, inspection_id=number))
    assert right.status_code == 200, right.text
    kept = right.json()["verification_id"]
    assert (await shown(site, header, kept))["inspection_id"] == number
    async with site.database.connect() as connection:
        done = await connection.execute(
            text("SELECT state, result, verification_id FROM inspection WHERE inspection_id = :n"),
            {"n": number},
        )
        assert tuple(done.one()) == ("done", "pass", kept)
    late = await enter(site, header, asked(OWN, inspection_id=number, certificate="C-2"))
    assert late.status_code == 422
    assert "done already" in late.text


async def test_the_command_enters_shows_and_writes_certificates(
    site: Site, tmp_path: Path, run_command: RunCommand
) -> None:
    environment = {"CHARGEWATCH_DATABASE_URL": site.settings.database_url}
    path = tmp_path / "result.json"
    path.write_text(json.dumps(asked(error=0.03)), encoding="utf-8")
    done = run_command("verification", "enter", str(path), "--json", env=environment)
    assert done.returncode == 0, done.stderr
    number = json.loads(done.stdout)["verification_id"]
    assert json.loads(done.stdout)["result"] == "fail"
    out = tmp_path / "c.xml"
    assert run_command(
        "verification", "dcc", str(number), "--out", str(out), env=environment
    ).returncode == 0  # fmt: skip
    bad = run_command("verification", "enter", str(out), env=environment)
    assert bad.returncode == 1
    assert "already" in bad.stderr
    gone = run_command("verification", "withdraw", str(number), "--why", "a test", env=environment)
    assert gone.returncode == 0, gone.stderr
    again = run_command("verification", "enter", str(out), "--json", env=environment)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["file_id"] is not None
    assert "fail" in run_command("verification", "list", env=environment).stdout
