"""Whether the service can work; for load balancers, without a log-in."""

from __future__ import annotations

import asyncio
import logging

import asyncpg
from fastapi import APIRouter
from sqlalchemy.exc import SQLAlchemyError

from chargewatch import __version__
from chargewatch.api.answers import JsonAnswer
from chargewatch.api.context import ServiceOf
from chargewatch.api.models import Health
from chargewatch.storage.migrate import current_revision
from chargewatch.storage.pages import city as city_rows

router = APIRouter(tags=["health"])
log = logging.getLogger(__name__)

DATABASE_TIMEOUT_S = 3.0


@router.get(
    "/health", response_class=JsonAnswer, responses={200: {"model": Health}, 503: {"model": Health}}
)
async def health(service: ServiceOf) -> JsonAnswer:
    """Answer 200 when the database answers, else 503."""
    answer = {
        "status": "ok",
        "version": __version__,
        "database": "ok",
        "engine": service.database.capabilities.engine,
        "schema_revision": None,
        "newest_run_as_of": None,
    }
    try:
        async with asyncio.timeout(DATABASE_TIMEOUT_S):
            answer["schema_revision"] = await current_revision(service.database.engine)
            async with service.database.connect() as connection:
                run = await city_rows.newest_run(connection)
    except (OSError, TimeoutError, SQLAlchemyError, asyncpg.PostgresError) as exc:
        log.warning("health database=%s", type(exc).__name__)
        return JsonAnswer({**answer, "status": "failing", "database": "no answer"}, status_code=503)
    answer["newest_run_as_of"] = None if run is None else run["as_of"]
    return JsonAnswer(answer)
