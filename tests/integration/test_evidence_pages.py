"""Evidence files on the pile's page and over the API: who gets which, and who may ask."""

from collections.abc import AsyncIterator

import pytest
from evidence_case import hollow_file, seed_evidence

from chargewatch.supervision.evidence.form import unpacked
from web_client import TOKEN_FIELD, Site, open_site

OF_OP2 = "TJ0001-01-1"
OF_OP1 = "TJ0002-01-1"


@pytest.fixture
async def site(database_url: str) -> AsyncIterator[Site]:
    async with open_site(database_url) as opened:
        await seed_evidence(opened.database, [("OP2", "TJ0001", OF_OP2), ("OP1", "TJ0002", OF_OP1)])
        yield opened


async def test_a_piles_files_are_listed_and_given_out_with_scope(site: Site) -> None:
    header = await site.token("op2")
    listed = (await site.client.get(f"/api/v1/piles/{OF_OP2}/evidence", headers=header)).json()
    (told,) = listed["files"]
    assert told["digest"] == hollow_file("OP2", "TJ0001", OF_OP2).digest
    assert not listed["wanted"]
    answer = await site.client.get(f"/api/v1/piles/{OF_OP2}/evidence.zip", headers=header)
    assert unpacked(answer.content).digest == told["digest"]
    assert answer.headers["content-type"] == "application/zip"
    assert f'filename="{OF_OP2}-run-' in answer.headers["content-disposition"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    for end in ("", ".zip"):
        other = await site.client.get(f"/api/v1/piles/{OF_OP1}/evidence{end}", headers=header)
        assert other.status_code == 404
    none = await site.client.get(
        f"/api/v1/piles/{OF_OP2}/evidence.zip", params={"run": 99}, headers=header
    )
    assert none.status_code == 404
    assert "in run 99" in none.text


async def test_the_next_run_is_asked_on_the_page_by_those_who_work_cases(site: Site) -> None:
    header = await site.token("op2")
    refused = await site.client.post(f"/api/v1/piles/{OF_OP2}/evidence", headers=header)
    assert refused.status_code == 403
    await site.log_in("op2")
    page = (await site.client.get(f"/piles/{OF_OP2}")).text
    assert "Evidence file" in page
    assert "Ask the next run for it" not in page
    file = await site.client.get(f"/piles/{OF_OP2}/evidence.zip")
    assert unpacked(file.content).pile["operator_id"] == "OP2"
    site.client.cookies.clear()
    await site.log_in("admin")
    page = (await site.client.get("/piles/TJ0003-01-1")).text
    assert "Not taken yet: runs take it of piles that become red or orange." in page
    token = TOKEN_FIELD.search(page)
    assert token is not None
    address = "/piles/TJ0003-01-1/evidence"
    done = await site.client.post(address, data={"form_token": token[1]})
    assert done.status_code == 303
    assert done.headers["location"] == "/piles/TJ0003-01-1#evidence-title"
    assert "The next run will take one." in (await site.client.get("/piles/TJ0003-01-1")).text
    again = await site.client.post(f"/api/v1{address}", headers=await site.token("admin"))
    assert again.json() == {"connector": "TJ0003-01-1", "asked": False}
