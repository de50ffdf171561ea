"""The application on a seeded database, asked without a network."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

import httpx
from argon2 import PasswordHasher
from fastapi import FastAPI

from chargewatch.api.context import Intake
from chargewatch.settings import Settings, load_settings
from chargewatch.storage.database import Database, open_database
from chargewatch.supervision import accounts
from chargewatch.supervision.audit import Actor
from chargewatch.supervision.permissions import Role
from chargewatch.web.app import create_app
from web_city import seed_city

PASSWORD = "correct-horse-battery"
TOKEN_FIELD = re.compile(r'name="form_token" value="([0-9a-f]+)"')


@dataclass
class Site:
    """A running application and what a test needs around it."""

    settings: Settings
    database: Database
    app: FastAPI
    client: httpx.AsyncClient

    async def token(self, username: str) -> dict[str, str]:
        """Log in over the API and return the header of the token."""
        answer = await self.client.post(
            "/api/v1/login", json={"username": username, "password": PASSWORD}
        )
        assert answer.status_code == 200, answer.text
        return {"authorization": f"Bearer {answer.json()['token']}"}

    async def log_in(self, username: str, *, password: str = PASSWORD, target: str = "/") -> Any:
        """Log in with the form; the client keeps the cookies."""
        form = await self.client.get("/login", params={"next": target})
        token = TOKEN_FIELD.search(form.text)
        assert token is not None
        return await self.client.post(
            "/login",
            data={
                "username": username,
                "password": password,
                "next": target,
                "form_token": token[1],
            },
        )


@asynccontextmanager
async def open_site(
    url: str, *, intake: Intake | None = None, seeded: bool = True
) -> AsyncIterator[Site]:
    """Yield the application with an administrator `admin` and users `op1`, `op2` of operators."""
    settings = replace(load_settings({}), database_url=url, public_url="https://piles.example")
    # The same algorithm at the lowest cost: a test logs in often.
    cheap = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    with mock.patch.object(accounts, "_hasher", lambda: cheap):
        async with open_database(url) as database:
            if seeded:
                await seed_city(database)
                for name in ("op1", "op2"):
                    await accounts.add_user(
                        database,
                        name,
                        role=Role.OPERATOR,
                        operator_id=name.upper(),
                        password=PASSWORD,
                        actor=Actor(name="test"),
                    )
            await accounts.add_user(
                database,
                "admin",
                role=Role.ADMINISTRATOR,
                password=PASSWORD,
                actor=Actor(name="test"),
            )
            app = create_app(settings, database, intake=intake)
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                yield Site(settings, database, app, client)
