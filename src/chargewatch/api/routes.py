"""All endpoints of the API under one prefix."""

from __future__ import annotations

from fastapi import APIRouter

from chargewatch.api import (
    accounts,
    case_steps,
    cases,
    complaints,
    credit,
    draws,
    due,
    events,
    evidence,
    health,
    inspections,
    jobs,
    ledger,
    money,
    notices,
    piles,
    public,
    registry,
    registry_files,
    runs,
    session,
    stations,
    telemetry,
    verifications,
)

API_PREFIX = "/api/v1"


MODULES = (
    session,
    accounts,
    piles,
    money,
    evidence,
    stations,
    cases,
    case_steps,
    runs,
    ledger,
    telemetry,
    events,
    health,
    jobs,
    credit,
    complaints,
    public,
    draws,
    inspections,
    notices,
    due,
    registry_files,
    registry,
    verifications,
)
"""In the order of docs/api.md."""


def api_router() -> APIRouter:
    """Return the router of /api/v1."""
    router = APIRouter(prefix=API_PREFIX)
    for module in MODULES:
        router.include_router(module.router)
    return router
