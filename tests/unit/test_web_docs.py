"""docs/api.md and docs/pages.md name everything that there is."""

from __future__ import annotations

import socket
from pathlib import Path

from fastapi import FastAPI

from chargewatch.api.routes import api_router
from chargewatch.supervision.accounts import Role
from chargewatch.web import (
    page_overview,
    page_pile,
    page_piles,
    page_session,
    page_signals,
    page_stations,
    page_system,
)
from chargewatch.web.server import listen

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_every_endpoint_and_role_is_documented() -> None:
    text = (DOCS / "api.md").read_text(encoding="utf-8")
    app = FastAPI()
    app.include_router(api_router())
    for path, verbs in app.openapi()["paths"].items():
        for verb in verbs:
            assert f"{verb.upper()} {path}" in text, path
    for role in Role:
        assert f"`{role.value}`" in text


def test_every_page_is_documented() -> None:
    text = (DOCS / "pages.md").read_text(encoding="utf-8")
    forms = {"/logout", "/preferences"}
    for module in (
        page_overview,
        page_pile,
        page_piles,
        page_session,
        page_signals,
        page_stations,
        page_system,
    ):
        for route in module.router.routes:
            path = getattr(route, "path", "")
            assert path in forms or f"`{path}`" in text, path


def test_answers_are_not_held_back_by_nagles_algorithm() -> None:
    with listen("127.0.0.1", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP
