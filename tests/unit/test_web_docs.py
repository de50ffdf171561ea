"""docs/api.md and docs/pages.md name everything that there is, and nothing else."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re

from fastapi import FastAPI

from chargewatch.api.routes import api_router
from chargewatch.supervision.permissions import Role
from chargewatch.web import pages
from chargewatch.web.language import LANGUAGES, Translator
from chargewatch.web.site import PAGES, modules
from documents import SOURCE, code, page, rows, section
from web_routes import Address, addresses

API = page("api.md")
# What answers a form, a browser or a bookmark of old: no page to look at.
NO_PAGES = {"/logout", "/preferences", "/favicon.ico"}
# Explained once for all lists, and for all addresses of one connector.
EVERYWHERE = {"limit", "offset", "before", "after", "station_id", "operator_id"}
ADDRESS = re.compile(r"(?:GET|POST|PATCH|DELETE) /api/v1/[^\s?`]+")


def endpoints() -> list[Address]:
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    app.include_router(api_router())
    return addresses(app)


def test_every_endpoint_is_documented_and_no_other() -> None:
    every = {f"{address.method} {address.path}" for address in endpoints()}
    assert set(ADDRESS.findall(API)) - {"GET /api/v1/openapi.json"} == every


def test_every_parameter_of_an_endpoint_stands_beside_it() -> None:
    tables = section("api.md", "Reading") + section("api.md", "Changing")
    cells = {name: row[1] for row in rows(tables) for name in code(row[0])}
    for address in endpoints():
        name = f"{address.method} {address.path}"
        if name == "GET /api/v1/events":
            words = set(re.findall(r"\w+", section("api.md", "Live values")))
        elif name in cells:
            words = set(re.findall(r"\w+", " ".join(code(cells[name])))) | EVERYWHERE
        else:
            words = set(re.findall(r"\w+", section("api.md", "The HTTP door for telemetry")))
        assert set(address.in_query) <= words, name
    conventions = section("api.md", "Conventions")
    for name in ("limit", "offset", "before", "after"):
        assert f"`{name}`" in conventions


def test_every_status_of_an_error_is_documented() -> None:
    documented = {row[0] for row in rows(section("api.md", "Conventions"))}
    raised = {
        str(node.args[0].value)
        for path in [*SOURCE.glob("api/**/*.py"), *SOURCE.glob("web/**/*.py")]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "ApiError"
        and isinstance(node.args[0], ast.Constant)
    }
    assert len(raised) > 5
    assert raised <= documented


def test_every_role_is_documented_and_no_other() -> None:
    table = rows(section("api.md", "Log-in"))
    roles = [word for row in table for word in code(row[0]) if not word.startswith("--")]
    assert sorted(roles) == sorted(role.value for role in Role)


def test_every_page_is_documented_and_no_other() -> None:
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    for module in pkgutil.iter_modules(pages.__path__):
        app.include_router(importlib.import_module(f"chargewatch.web.pages.{module.name}").router)
    every = {one.path for one in addresses(app) if one.method == "GET"} - NO_PAGES
    assert every == {page.path for page in PAGES}
    assert {module.name for module in pkgutil.iter_modules(pages.__path__)} == set(modules())
    table = page("pages.md").partition("\n## ")[0]
    documented = {word for row in rows(table) for word in code(" ".join(row)) if word[0] == "/"}
    assert documented == every


def test_every_section_of_the_navigation_has_a_name_in_both_languages() -> None:
    for language in LANGUAGES:
        assert all(
            Translator(language)(f"nav.{each.name}")
            for each in [each for each in PAGES if each.group]
        )


def test_a_path_lies_in_one_section() -> None:
    held = {
        path: [each.name for each in [each for each in PAGES if each.group] if each.holds(path)]
        for path in ("/", "/piles", "/piles/A", "/stations/B", "/system", "/login", "/nothing")
    }
    assert held == {
        "/": ["overview"],
        "/piles": ["piles"],
        "/piles/A": ["piles"],
        "/stations/B": ["stations"],
        "/system": ["system"],
        "/login": [],
        "/nothing": [],
    }
    assert PAGES[3].address(connector="a/b c") == "/piles/a%2Fb%20c"
