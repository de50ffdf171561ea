"""The office at work on cases: users of every role, and the API asked as each of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import text

from chargewatch.supervision import accounts
from chargewatch.supervision.audit import Actor
from chargewatch.supervision.permissions import Role
from web_client import PASSWORD, Site, open_site

TODAY = datetime.now(ZoneInfo("Asia/Shanghai")).date()
RED, GREEN, GREY = "TJ0001-01-1", "TJ0001-07-1", "TJ0001-05-1"
"""Of OP2: TJ0001-01-1 is flagged, TJ0001-05-1 is grey."""
OTHERS = "TJ0003-01-1"
"""Of OP1, red."""
OFFICE = {"wang": Role.SUPERVISOR, "li": Role.INSPECTOR, "zhao": Role.INSPECTOR,
          "audit": Role.AUDITOR}  # fmt: skip


@asynccontextmanager
async def open_case_site(url: str) -> AsyncIterator[Site]:
    """Yield the application with the users of OFFICE, `admin`, `op1` and `op2`."""
    async with open_site(url) as opened:
        for name, role in OFFICE.items():
            await accounts.add_user(
                opened.database, name, role=role, password=PASSWORD, actor=Actor(name="test")
            )
        yield opened


class Office:
    """Asks the API as somebody."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.tokens: dict[str, dict[str, str]] = {}

    async def header(self, who: str) -> dict[str, str]:
        if who not in self.tokens:
            self.tokens[who] = await self.site.token(who)
        return self.tokens[who]

    async def get(self, who: str, path: str, status: int = 200) -> Any:
        answer = await self.site.client.get(f"/api/v1/cases{path}", headers=await self.header(who))
        assert answer.status_code == status, f"{path}: {answer.status_code} {answer.text}"
        return answer.json()

    async def post(self, who: str, path: str, body: Any, status: int = 200) -> Any:
        answer = await self.site.client.post(
            f"/api/v1/cases{path}", headers=await self.header(who), json=body
        )
        assert answer.status_code == status, f"{path}: {answer.status_code} {answer.text}"
        return answer.json()

    async def open(self, connector: str = RED, who: str = "wang", **more: Any) -> str:
        told = await self.post(who, "", {"connector": connector, "origin": "flag", **more})
        return str(told["case"]["number"])

    async def step(self, who: str, number: str, step: str, status: int = 200, **more: Any) -> Any:
        return await self.post(who, f"/{number}/steps", {"step": step, **more}, status)


async def send_sql(site: Site, statement: str, **values: Any) -> list[Any]:
    async with site.database.begin() as connection:
        found = await connection.execute(text(statement), values)
        return list(found.mappings().all()) if found.returns_rows else []
