"""What every JSON route answers is what the API's document declares, key by key."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import pytest
from fastapi.routing import APIRoute, iter_route_contexts
from pydantic import BaseModel

from chargewatch.ingest.intake import Intake
from chargewatch.settings import load_settings
from chargewatch.supervision import tokens
from chargewatch.supervision.audit import Action, Actor, record
from web_cases import NUMBER, seed_cases
from web_client import PASSWORD, Site, open_site
from web_office import WITHDRAWN, fill_office
from web_rarities import fill_rarities
from web_routes import Address, addresses

STATION, CONNECTOR = "TJ0001", "TJ0001-01-1"
OPEN_CASE = "2026-000002"
# A stream, and files: their own tests read them.
NO_JSON = {
    "/api/v1/events",
    "/api/v1/cases/{number}/files/{file_id}",
    "/api/v1/piles/{connector}/evidence.zip",
    "/api/v1/verifications/{verification_id}/dcc.xml",
    "/api/v1/registry/export",
    "/api/v1/registry/ledger-file",
    *(f"/api/v1/public/{name}.csv" for name in ("piles", "stations", "districts")),
}
IN_PATH = {
    "draw_id": "2026-12",
    "number": NUMBER,
    "connector": CONNECTOR,
    "station_id": STATION,
    "operator_id": "OP2",
    "month": "2026-01",
    "job_id": "1",
    "complaint_id": "1",
    "verification_id": str(WITHDRAWN),
    "list_name": "stations",
    "row_name": STATION,
}


@pytest.fixture
async def site(database_url: str) -> AsyncIterator[Site]:
    settings = replace(load_settings({}), database_url=database_url)
    async with Intake(settings) as intake, open_site(database_url, intake=intake) as opened:
        await fill_rarities(opened.database)
        names = (CONNECTOR, f"{STATION}-02-1", f"{STATION}-03-1")
        await seed_cases(opened.database, [("OP2", STATION, name, "it") for name in names])
        await fill_office(opened.database)
        header = await opened.token("admin")
        for _ in range(2):
            body = {"label": "test"}
            await opened.client.post("/api/v1/me/tokens", headers=header, json=body)
        await opened.client.delete("/api/v1/me/tokens/1", headers=header)
        async with opened.database.begin() as connection:
            await record(
                connection, Actor(name="x", role="y"), Action.REGISTRY_IMPORTED, "z", why="w", a=1
            )
        yield opened


def declared_models(site: Site) -> dict[tuple[str, str], type[BaseModel] | None]:
    """Return by method and path what a route of the API declares to answer with 200."""
    found: dict[tuple[str, str], type[BaseModel] | None] = {}
    for context in iter_route_contexts(site.app.routes):
        route, path = context.route, context.path or ""
        if isinstance(route, APIRoute) and path.startswith("/api/v1/") and route.include_in_schema:
            for method in route.methods:
                found[method, path] = route.responses.get(200, {}).get("model")
    return found


def told(value: Any, path: str = "") -> set[str]:
    """Return the fields that have a value: `piles[].mpe`."""
    if isinstance(value, Mapping):
        return {path} | {name for k, v in value.items() for name in told(v, f"{path}.{k}")}
    if isinstance(value, list):
        return {name for item in value for name in told(item, f"{path}[]")}
    return set() if value is None else {path}


def fields_of(model: Any, path: str = "") -> set[str]:
    """Return the paths of all values that a model declares."""
    if isinstance(model, type) and issubclass(model, BaseModel):
        return {path} | {
            name
            for key, field in model.model_fields.items()
            for name in fields_of(field.annotation, f"{path}.{field.alias or key}")
        }
    for part in get_args(model):
        if part is type(None):
            continue
        inner = f"{path}[]" if getattr(model, "__origin__", None) in (list, tuple) else path
        return fields_of(part, inner)
    return {path}


def check(model: type[BaseModel], text: str, asked: str) -> Any:
    """Return an answer that has exactly the declared keys, each of the declared type."""
    try:
        model.model_validate_json(text, strict=True, extra="forbid")
    except ValueError as exc:
        raise AssertionError(f"{asked} does not answer what {model.__name__} declares") from exc
    return json.loads(text)


async def ask(site: Site, address: Address, header: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return the bodies of all answers with 200, each with what was asked for."""
    queries: list[dict[str, str]] = [
        {},
        *([{"state": "all"}] if address.path in WITH_ENDED else []),
        *({name: v} for name, v in QUERY if name in address.in_query),
    ]
    answers = []
    for query in queries:
        url = address.url(IN_PATH, query)
        answer = await site.client.request(address.method, url, headers=dict(header))
        assert answer.status_code == 200, f"{url}: {answer.text}"
        answers.append((url, answer.text))
    return answers


# What changes the form of an answer: pages that have a next one, spans without data, old steps.
QUERY = (
    ("limit", "1"),
    ("offset", "5000"),
    ("days", "31"),
    ("since", "2199-01-01T00:00:00Z"),
    # The beginning of certificates.
    ("q", "V-"),
)
# Lists that leave out what has ended unless they are asked.
WITH_ENDED = ("/api/v1/cases", "/api/v1/complaints")


async def test_every_answer_is_what_its_model_declares(site: Site) -> None:
    models = declared_models(site)
    header = await site.token("admin")
    checked: set[tuple[str, str]] = set()
    unseen: set[str] = set()
    for address in addresses(site.app):
        key = (address.method, address.path)
        if key not in models or address.method != "GET" or address.path in NO_JSON:
            continue
        model = models[key]
        assert model is not None, f"{key} declares no model"
        seen: set[str] = set()
        for asked_as in (header, await site.token("op2")):
            if (
                await site.client.get(address.url(IN_PATH, {}), headers=asked_as)
            ).status_code == 403:
                continue
            for url, text in await ask(site, address, asked_as):
                seen |= told(check(model, text, url))
        unseen |= {f"{address.path} {name}" for name in fields_of(model) - seen}
        checked.add(key)
    assert not unseen, "the seeded city has no value of:\n" + "\n".join(sorted(unseen))
    reads = {(method, path) for method, path in models if method == "GET"}
    assert reads - checked == {("GET", path) for path in NO_JSON}


def writes() -> list[tuple[str, str, Any]]:
    """Return method, path and body of everything that changes something and answers with JSON."""
    now = datetime.now(UTC)
    later = (now + timedelta(days=9)).date().isoformat()
    compared = {"load": "100 %", "repetitions": [{"indicated_wh": 5020, "reference_wh": 5000}] * 3}
    kinds = ["job_failed"]
    return [
        ("POST", "/api/v1/users", {"username": "new", "role": "operator", "operator_id": "OP1"}),
        ("POST", "/api/v1/users/{username}/password", None),
        ("POST", "/api/v1/me/second-factor", None),
        ("POST", "/api/v1/me/tokens", {"label": "test", "scope": "all", "days": 1}),
        ("POST", "/api/v1/me/wish", {"mail": "a@city.example", "mail_kinds": kinds}),
        (
            "POST",
            "/api/v1/webhooks",
            {"label": "portal", "address": "https://portal.example/in", "kinds": kinds},
        ),
        (
            "POST",
            "/api/v1/operators/{operator_id}/commitments",
            {"text": "all of them verified in time", "until": later},
        ),
        ("POST", "/api/v1/credit/{month}", {"action": "recount", "why": "a test"}),
        ("POST", "/api/v1/complaints/{complaint_id}/case", None),
        ("POST", "/api/v1/piles/{connector}/evidence", None),
        (
            "POST",
            "/api/v1/piles/{connector}/changes",
            {"kind": "meter_replaced", "at": (now - timedelta(hours=1)).isoformat()},
        ),
        (
            "POST",
            "/api/v1/verifications",
            {
                "connector": CONNECTOR,
                "verified_on": (now - timedelta(days=1)).date().isoformat(),
                "kind": "subsequent",
                "certificate": "C-1",
                "reference": {"name": "R1", "expanded_uncertainty": 0.001},
                "resolution_wh": 1,
                "loads": [compared],
            },
        ),
        (
            "POST",
            "/api/v1/inspections",
            {"case": OPEN_CASE, "inspectors": ["wang", "chen"], "due_on": later},
        ),
        (
            "POST",
            "/api/v1/registry/{list_name}",
            {"values": {"name": "\uff34\uff21\uff2e\uff27"}, "why": "new here"},
        ),
        (
            "PATCH",
            "/api/v1/registry/{list_name}/{row_name}",
            {"values": {"username": "\uff37ang"}, "version": 0, "why": "logs in now"},
        ),
    ]


# Their own tests check what these answer.
CHECKED_ELSEWHERE = (
    ("POST", "/api/v1/cases"),
    ("POST", "/api/v1/registry/imports"),
    ("POST", "/api/v1/login"),
    ("POST", "/api/v1/telemetry/"),
)


async def test_what_changes_something_answers_what_its_model_declares(site: Site) -> None:
    header = await site.token("admin")
    of_writes = {
        "username": "new", "operator_id": "OP1", "complaint_id": "2", "list_name": "inspectors",
        "row_name": "wang",
    }  # fmt: skip
    asked = writes()
    models = declared_models(site)
    for method, path, body in asked:
        model = models[method, path]
        assert model is not None
        url = path.format_map(IN_PATH | of_writes)
        answer = await site.client.request(method, url, headers=header, json=body)
        assert answer.status_code == 200, f"{url}: {answer.text}"
        assert fields_of(model) <= told(check(model, answer.text, url)), url
    answering = {key for key, model in models.items() if model is not None and key[0] != "GET"}
    others = {
        (method, path)
        for method, path in answering
        if any(method == m and path.startswith(p) for m, p in CHECKED_ELSEWHERE)
    }
    assert answering - others == {(method, path) for method, path, _ in asked}


async def test_log_in_and_receipts_are_what_their_models_declare(site: Site) -> None:
    models = declared_models(site)
    token_model = models["POST", "/api/v1/login"]
    assert token_model is not None
    for name in ("admin", "op1"):
        answer = await site.client.post(
            "/api/v1/login", json={"username": name, "password": PASSWORD}
        )
        check(token_model, answer.text, f"log-in of {name}")
    receipt = models["POST", "/api/v1/telemetry/{kind}"]
    assert receipt is not None
    token = await tokens.issue_operator_token(
        site.database, "OP1", label="test", actor=Actor(name="test")
    )
    now = datetime.now(UTC).isoformat()
    good = {"connector": "TJ0006-01-1", "at": now, "energy_wh": 5}
    seen: set[str] = set()
    for content in (
        {"seq": 1, "sent_at": now, "readings": [good, {**good, "energy_wh": -1}]},
        {"seq": 1, "sent_at": now, "readings": "none"},
        {"online": False},
    ):
        kind = "status" if "online" in content else "registers"
        answer = await site.client.post(
            f"/api/v1/telemetry/{kind}?station_id=TJ0006",
            content=json.dumps(content),
            headers={"authorization": f"Bearer {token}"},
        )
        assert answer.status_code == 200, answer.text
        seen |= told(check(receipt, answer.text, f"receipt of {content}"))
    assert fields_of(receipt) == seen


async def test_an_empty_database_is_answered_in_the_same_form(database_url: str) -> None:
    async with open_site(database_url, seeded=False) as site:
        header = await site.token("admin")
        models = declared_models(site)
        reads = [a for a in addresses(site.app) if a.method == "GET" and not a.in_path]
        asked = 0
        for address in reads:
            model = models.get((address.method, address.path))
            if model is not None:
                [(url, text), *_] = await ask(site, address, header)
                check(model, text, url)
                asked += 1
        assert asked >= 7
