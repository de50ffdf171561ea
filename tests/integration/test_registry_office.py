"""The registry by hand: search, edits against a version, history of every list, guards."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import pytest
from registry_case import REGISTRY, fetch
from sqlalchemy import text

from chargewatch.supervision import accounts
from chargewatch.supervision.audit import Actor
from chargewatch.supervision.permissions import Role
from web_client import PASSWORD, TOKEN_FIELD, Site, open_site

CONNECTOR = "TJ0001-01-1"
API = "/api/v1/registry"


@pytest.fixture
async def site(database_url: str) -> AsyncIterator[Site]:
    async with open_site(database_url) as opened:
        for role in (Role.SUPERVISOR, Role.INSPECTOR, Role.AUDITOR):
            await accounts.add_user(
                opened.database, f"the-{role}", role=role, password=PASSWORD,
                actor=Actor(name="test"),
            )  # fmt: skip
        yield opened


async def row_of(site: Site, header: dict[str, str], path: str) -> dict[str, Any]:
    answer = await site.client.get(f"{API}/{path}", headers=header)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def patch(
    site: Site, header: dict[str, str], path: str, values: dict[str, Any], **more: Any
) -> Any:
    version = more.pop("version", None)
    if version is None:
        version = (await row_of(site, header, path))["version"]
    body = {"values": values, "version": version, "why": "a test", **more}
    return await site.client.patch(f"{API}/{path}", headers=header, json=body)


async def test_an_edit_keeps_who_when_and_why_and_is_in_the_audit_trail(site: Site) -> None:
    header = await site.token("the-supervisor")
    path = f"connectors/{CONNECTOR}"
    answer = await patch(site, header, path, {"model": "X-9", "accuracy_class": "1级"})
    assert answer.status_code == 200, answer.text
    edited = answer.json()
    assert set(edited["fields"]) <= {"model", "accuracy_class"}
    assert edited["fields"]["model"]["after"] == "X-9"
    row = await row_of(site, header, path)
    assert (row["values"]["model"], row["values"]["accuracy_class"]) == ("X-9", "1")
    assert row["version"] == edited["version"] > 0
    [change] = (await row_of(site, header, f"{path}/history"))["changes"]
    assert (change["actor"], change["why"], change["source"]) == ("the-supervisor", "a test", "")
    assert change["fields"]["model"]["after"] == "X-9"
    admin = await site.token("admin")
    trail = await site.client.get(f"/api/v1/audit?subject=connectors:{CONNECTOR}", headers=admin)
    [entry] = trail.json()["entries"]
    assert (entry["action"], entry["why"]) == ("registry_edited", "a test")
    assert entry["detail"]["fields"]["model"]["after"] == "X-9"
    # What was there already is no change, and no entry.
    again = await patch(site, header, path, {"model": "X-9"})
    assert again.json()["fields"] == {}
    assert again.json()["version"] == edited["version"]


async def test_an_edit_of_an_outdated_version_is_refused_with_both_values(site: Site) -> None:
    header = await site.token("admin")
    path = f"connectors/{CONNECTOR}"
    version = (await row_of(site, header, path))["version"]
    assert (await patch(site, header, path, {"model": "mine"}, version=version)).status_code == 200
    late = await patch(site, header, path, {"model": "yours"}, version=version)
    assert (late.status_code, late.json()["error"]["code"]) == (409, "outdated")
    message = late.json()["error"]["message"]
    assert "'yours'" in message
    assert "'mine'" in message
    assert (await row_of(site, header, path))["values"]["model"] == "mine"
    # The same on the page: both values, who was faster, and nothing changed.
    await site.log_in("admin")
    form = await site.client.get(f"/registry/connectors/{CONNECTOR}?field=serial")
    token = TOKEN_FIELD.search(form.text)
    assert token is not None
    shown = re.search(r'name="version" value="(\d+)"', form.text)
    assert shown is not None
    fields = {"form_token": token[1], "field": "serial", "version": shown[1], "why": "plate read"}
    saved = await site.client.post(
        f"/registry/connectors/{CONNECTOR}", data=fields | {"value": "SN-1"}
    )
    assert saved.status_code == 303, saved.text
    again = await site.client.post(
        f"/registry/connectors/{CONNECTOR}", data=fields | {"value": "SN-2"}
    )
    assert again.status_code == 409
    for word in ("SN-1", "SN-2", "Somebody was faster", "plate read"):
        assert word in again.text, word
    assert (await row_of(site, header, path))["values"]["serial"] == "SN-1"


@pytest.mark.parametrize(
    ("path", "values", "told"),
    [
        (f"connectors/{CONNECTOR}", {"rated_power_w": "seven"}, "rated_power_w: is not a number"),
        (f"connectors/{CONNECTOR}", {"rated_power_w": -1}, "rated_power_w"),
        (f"connectors/{CONNECTOR}", {"station_id": "NOPE"}, "'NOPE' stands neither"),
        (f"connectors/{CONNECTOR}", {"connector": "other"}, "identifies the row"),
        (f"connectors/{CONNECTOR}", {"colour": "red"}, "no field 'colour'"),
        (f"connectors/{CONNECTOR}", {"in_service_on": "5/1/2024"}, "in_service_on"),
        (f"connectors/{CONNECTOR}", {"model": "=1+1"}, "formula"),
        (f"connectors/{CONNECTOR}", {"accuracy_class": None}, "accuracy_class: is missing"),
        ("stations/TJ0001", {"longitude": 190}, "longitude"),
        ("operators/OP1", {"name": "#N/A"}, "error value"),
        (f"ledger/{CONNECTOR}", {"place_code": "12"}, "place_code"),
        (f"ledger/{CONNECTOR}", {"quantity": "1.5"}, "whole number"),
        (f"ledger/{CONNECTOR}", {"serial": "1"}, "identifies the row"),
    ],
)  # fmt: skip
async def test_a_value_is_refused_by_the_rules_of_imports(
    site: Site, path: str, values: dict[str, Any], told: str
) -> None:
    header = await site.token("admin")
    before = await row_of(site, header, path)
    answer = await patch(site, header, path, values)
    assert answer.status_code == 422, answer.text
    assert told in answer.json()["error"]["message"]
    assert await row_of(site, header, path) == before


async def test_a_change_needs_a_reason(site: Site) -> None:
    header = await site.token("admin")
    for why in ("", "   ", "x" * 501):
        answer = await patch(site, header, f"connectors/{CONNECTOR}", {"model": "m"}, why=why)
        assert answer.status_code == 422, why
        assert "reason" in answer.json()["error"]["message"]


EDITS = {
    "operators": ("OP1", "contact", "022-1"),
    "stations": ("TJ0001", "district", "120105"),
    "connectors": ("TJ0001-03-1", "pile", "TJ0001-99"),
    "reference_meters": ("TJ0001-M1", "relative_uncertainty", 0.003),
    "verifications": (None, "institute", "TIMT"),
    "tariffs": (None, "periods", [
        {"from": "00:00", "to": "24:00", "energy_price": "0.5", "service_price": "0.1"}
    ]),
    "inspectors": ("王检", "recused_operators", ["OP1"]),
    "ledger": ("TJ0001-03-1", "purpose", "贸易结算"),
}  # fmt: skip


@pytest.fixture
async def imported(database_url: str, run_command: Any, tmp_path: Any) -> AsyncIterator[Site]:
    """Yield the application over a registry with one row of every list, imported by command."""
    path = tmp_path / "registry.json"
    document = REGISTRY | {
        "inspectors": [{"name": "王检"}],
        "ledger": [{"connector": "TJ0001-03-1", "origin": "天津"}],
    }
    path.write_text(json.dumps(document))
    done = run_command(
        "registry", "import", str(path), env={"CHARGEWATCH_DATABASE_URL": database_url}
    )
    assert done.returncode == 0, done.stderr
    async with open_site(database_url, seeded=False) as opened:
        yield opened


@pytest.mark.parametrize("kind", EDITS)
async def test_every_list_has_its_history_from_import_to_edit(imported: Site, kind: str) -> None:
    site = imported
    header = await site.token("admin")
    name, field, value = EDITS[kind]
    if name is None:
        column = {"verifications": "verification_id", "tariffs": "tariff_id"}[kind]
        table = kind.removesuffix("s")
        [found] = await fetch(site.settings.database_url, f"SELECT {column} AS id FROM {table}")
        name = str(found["id"])
    answer = await patch(site, header, f"{kind}/{name}", {field: value})
    assert answer.status_code == 200, answer.text
    history = (await row_of(site, header, f"{kind}/{name}/history"))["changes"]
    own = [change for change in history if change["list"] == kind]
    if kind == "reference_meters":
        # The connectors of a meter are an entry of their own.
        assert own[1]["fields"] == {"connectors": {"before": None, "after": ["TJ0001-03-1"]}}
        own = [own[0], own[2]]
    edited, new = own
    assert (edited["actor"], edited["why"], edited["is_new"]) == ("admin", "a test", False)
    assert new["is_new"]
    assert new["source"] == "registry.json"
    assert new["actor"].startswith("command line")
    after = edited["fields"][field]["after"]
    wanted = {"periods": [{**EDITS["tariffs"][2][0], "to": "00:00"}]}.get(field, value)
    assert after == wanted
    # An auditor's page shows it; nothing of it can be edited there.
    await site.log_in("admin")
    page = await site.client.get(f"/registry/{kind}/{name}")
    assert page.status_code == 200
    assert "a test" in page.text
    assert "registry.json" in page.text


async def test_history_of_a_connector_holds_its_verifications_and_ledger(imported: Site) -> None:
    header = await imported.token("admin")
    history = await row_of(imported, header, "connectors/TJ0001-03-1/history")
    assert {change["list"] for change in history["changes"]} == {
        "connectors", "verifications", "ledger",
    }  # fmt: skip


async def test_search_finds_by_whatever_is_on_the_plate(site: Site) -> None:
    header = await site.token("admin")
    async with site.database.begin() as connection:
        await connection.execute(
            text(
                "UPDATE connector SET serial = 'Sn-00' || connector_id, manufacturer = 'Maker A', "
                "model = CASE WHEN connector_id % 2 = 0 THEN 'EVEN' ELSE 'ODD' END"
            )
        )
        await connection.execute(
            text("UPDATE verification SET certificate = 'JZ-' || verification_id")
        )

    async def names(query: str) -> list[str]:
        answer = await site.client.get(f"{API}/instruments?{query}", headers=header)
        assert answer.status_code == 200, answer.text
        return [row["connector"] for row in answer.json()["instruments"]]

    assert await names("q=tj0001-01") == ["TJ0001-01-1"]
    [[seventh]] = [await names("q=sn-007&by=serial&limit=1")]
    assert await names("q=SN-007") == await names("q=sn-007&by=serial")
    assert seventh in await names("q=SN-007")
    assert len(await names("q=JZ-&by=certificate")) > 0
    assert len(await names("model=EVEN&limit=200")) == len(await names("model=ODD&limit=200"))
    assert await names("maker=Maker A&limit=500") == await names("limit=500")
    assert {name[:6] for name in await names("station=TJ0002")} == {"TJ0002"}
    assert await names("q=TJ0002&limit=100") == await names("station=TJ0002&limit=100")
    assert await names("q=100%") == []
    assert await names("q=_J0001") == []


@pytest.mark.parametrize("by", ["", "q=TJ&by=connector", "q=S&by=serial", "q=J&by=certificate"])
async def test_pages_of_a_search_are_the_whole_list_once(site: Site, by: str) -> None:
    header = await site.token("admin")
    async with site.database.begin() as connection:
        await connection.execute(text("UPDATE connector SET serial = 'S' || connector_id / 7"))
        await connection.execute(
            text("UPDATE verification SET certificate = 'j' || verification_id / 7")
        )
    whole = await row_of(site, header, f"instruments?{by}&limit=500")
    assert whole["next_after"] is None
    seen, after = [], ""
    while True:
        page = await site.client.get(
            f"{API}/instruments?{by}&limit=17&after={quote(after)}", headers=header
        )
        seen += page.json()["instruments"]
        after = page.json()["next_after"]
        if not after:
            break
    assert seen == whole["instruments"]
    assert len(seen) > 100


async def test_an_operators_user_sees_its_own_and_edits_nothing(site: Site) -> None:
    header = await site.token("op2")
    own = await row_of(site, header, "instruments?limit=500")
    assert {row["operator_id"] for row in own["instruments"]} == {"OP2"}
    mine = own["instruments"][0]
    assert (await row_of(site, header, f"connectors/{mine['connector']}"))["values"]
    for path in (
        "connectors/TJ0002-01-1", "stations/TJ0002", "operators/OP1", "inspectors/x",
        "ledger/TJ0002-01-1", "tariffs/1", "connectors/TJ0002-01-1/history",
        "inspectors", "nothing", "verifications/99999999999999999999", "tariffs/x",
    ):  # fmt: skip
        answer = await site.client.get(f"{API}/{path}", headers=header)
        assert answer.status_code == 404, path
    body = {"values": {"model": "m"}, "version": 0, "why": "w"}
    path = f"{API}/connectors/{mine['connector']}"
    assert (await site.client.patch(path, headers=header, json=body)).status_code == 403
    exported = (await site.client.get(f"{API}/export", headers=header)).json()
    assert {row["operator_id"] for row in exported["operators"]} == {"OP2"}
    assert "inspectors" not in exported
    assert all(row["station_id"] in {s["station_id"] for s in exported["stations"]}
               for row in exported["connectors"])  # fmt: skip
    assert await _history_tells_nobody(site, header, mine["connector"])


async def _history_tells_nobody(site: Site, header: dict[str, str], connector: str) -> bool:
    admin = await site.token("admin")
    answer = await patch(site, admin, f"connectors/{connector}", {"model": "seen"}, why="secret")
    assert answer.status_code == 200, answer.text
    told = await row_of(site, header, f"connectors/{connector}/history")
    assert told["changes"][0]["fields"]["model"]["after"] == "seen"
    await site.log_in("op2")
    page = await site.client.get(f"/registry/connectors/{connector}")
    return all("secret" not in seen and "admin" not in seen for seen in (str(told), page.text))


async def test_inspectors_and_operators_are_registered_by_form(site: Site) -> None:
    await site.log_in("admin")
    form = await site.client.get("/registry/inspectors")
    token = TOKEN_FIELD.search(form.text)
    assert token is not None
    fields = {"form_token": token[1], "name": "李检", "recused_operators": "OP1;OP2", "why": "new"}
    made = await site.client.post("/registry/inspectors", data=fields)
    assert made.status_code == 303, made.text
    assert (await site.client.get(made.headers["location"])).status_code == 200
    again = await site.client.post("/registry/inspectors", data=fields)
    assert again.status_code == 422
    assert "edit it instead" in again.text
    unknown = await site.client.post(
        "/registry/inspectors", data=fields | {"name": "赵", "recused_operators": "OP9"}
    )
    assert unknown.status_code == 422
    assert "OP9" in unknown.text
    rows = await fetch(
        site.settings.database_url, "SELECT name, active, recused_operators FROM inspector"
    )
    assert rows == [{"name": "李检", "active": True, "recused_operators": ["OP1", "OP2"]}]


async def test_moving_a_connector_by_hand_is_what_an_import_would_do(imported: Site) -> None:
    site = imported
    header = await site.token("admin")
    made = await site.client.post(
        f"{API}/stations", headers=header,
        json={"values": {"station_id": "TJ0002", "operator_id": "OP1"}, "why": "built"},
    )  # fmt: skip
    assert made.status_code == 200, made.text
    meters = await patch(
        site, header, "reference_meters/TJ0001-M1", {"scope": "station", "connectors": None}
    )
    assert meters.status_code == 200, meters.text
    moved = await patch(site, header, "connectors/TJ0001-03-1", {"station_id": "TJ0002"})
    assert moved.status_code == 200, moved.text
    [row] = await fetch(
        site.settings.database_url, "SELECT station_id, operator_id, registered FROM connector"
    )
    assert row == {"station_id": "TJ0002", "operator_id": "OP1", "registered": True}
