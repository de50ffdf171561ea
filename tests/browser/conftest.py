"""A real server on a seeded database, and real Chromium."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from chargewatch.storage.database import open_database
from chargewatch.supervision import accounts
from chargewatch.supervision.audit import Actor
from chargewatch.supervision.permissions import Role
from missing import browser_program
from web_city import seed_city

PASSWORD = "correct-horse-battery"
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


async def _seed(url: str) -> None:
    async with open_database(url) as database:
        await seed_city(database)
        await accounts.add_user(
            database, "admin", role=Role.ADMINISTRATOR, password=PASSWORD, actor=Actor(name="test")
        )
        await accounts.add_user(
            database,
            "op2",
            role=Role.OPERATOR,
            operator_id="OP2",
            password=PASSWORD,
            actor=Actor(name="test"),
        )


@contextmanager
def _serving(url: str, log: Path) -> Iterator[str]:
    env = {**os.environ, "CHARGEWATCH_DATABASE_URL": url}
    command = [sys.executable, "-m", "chargewatch", "serve", "--port", "0"]
    with log.open("w") as errors, subprocess.Popen(command, env=env, stderr=errors) as process:
        try:
            started = time.monotonic()
            while not (found := re.search(r"http://127\.0\.0\.1:\d+", log.read_text())):
                assert process.poll() is None, log.read_text()
                assert time.monotonic() - started < 60, "the server did not start in 60 s"
                time.sleep(0.1)
            yield found[0]
        finally:
            process.terminate()
            process.wait(timeout=30)


@pytest.fixture(scope="module")
def site_url(embedded_server: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server process with the seeded city."""
    url = asyncio.run(embedded_server.clone())
    asyncio.run(_seed(url))
    with _serving(url, tmp_path_factory.mktemp("serve") / "stderr.txt") as address:
        yield address
    asyncio.run(embedded_server.drop(url))


# Playwright's loop runs as long as this fixture lives: asynchronous work (the seeding of site_url)
# comes before it, and it must end with the module, before other tests start loops of their own.
@pytest.fixture(scope="module")
def chromium(site_url: str) -> Iterator[Browser]:
    """Chromium of the system, without a window."""
    program = browser_program()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(ARGUMENTS))
        yield browser
        browser.close()


@dataclass
class Visit:
    """A browser window and everything that went wrong in it."""

    page: Page
    url: str
    problems: list[str] = field(default_factory=list)

    def watch(self) -> None:
        """Note console errors, failed scripts and requests to other hosts."""
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.problems.append(f"script: {error}"))
        self.page.on("request", self._request)

    def _console(self, message: Any) -> None:
        if message.type in {"error", "warning"}:
            self.problems.append(f"console: {message.text}")

    def _request(self, request: Any) -> None:
        if not request.url.startswith((self.url, "data:")):
            self.problems.append(f"other host: {request.url}")

    def open(self, path: str) -> Page:
        """Open a page and wait until its charts are drawn."""
        self.page.goto(self.url + path)
        expect(self.page.locator(".chart:not([data-drawn=true])")).to_have_count(0)
        return self.page


@pytest.fixture
def visit(chromium: Browser, site_url: str) -> Iterator[Callable[..., Visit]]:
    """Open browser windows; fails when one of them had a problem."""
    contexts: list[BrowserContext] = []
    visits: list[Visit] = []

    def start(*, user: str | None = "admin", width: int = 1280, **options: Any) -> Visit:
        settings = {"locale": "en-GB", "viewport": {"width": width, "height": 800}, **options}
        context = chromium.new_context(**settings)
        context.set_default_timeout(20_000)
        contexts.append(context)
        if user is not None:
            answer = context.request.post(
                site_url + "/api/v1/login", data={"username": user, "password": PASSWORD}
            )
            token = answer.json()["token"]
            context.add_cookies([{"name": "chargewatch_session", "value": token, "url": site_url}])
        opened = Visit(context.new_page(), site_url)
        opened.watch()
        visits.append(opened)
        return opened

    yield start
    for context in contexts:
        context.close()
    assert [problem for one in visits for problem in one.problems] == []
