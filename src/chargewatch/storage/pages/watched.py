"""Which queries of the pages are watched: each says beside itself how a page asks it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection


@dataclass(frozen=True, kw_only=True)
class SampleValues:
    """Values that a page is asked for: one connector, its station, the newest run."""

    run_id: int | None
    connector: str
    connector_id: int
    station_id: str
    operator_id: str
    district: str
    meter_id: int
    now: datetime


Ask = Callable[[AsyncConnection, SampleValues], Awaitable[Any]]
Arguments = Callable[[SampleValues], Mapping[str, Any]]
Query = TypeVar("Query", bound=Callable[..., Awaitable[Any]])

WATCHED: dict[Callable[..., Awaitable[Any]], dict[str, Ask]] = {}
"""The cases of each watched query by their names."""


def watched(cases: Mapping[str, Arguments]) -> Callable[[Query], Query]:
    """Declare how pages ask a query: each case has a name, and arguments made of a sample."""

    def note(query: Query) -> Query:
        WATCHED[query] = {name: _asking(query, arguments) for name, arguments in cases.items()}
        return query

    return note


def _asking(query: Callable[..., Awaitable[Any]], arguments: Arguments) -> Ask:
    return lambda connection, sample: query(connection, **arguments(sample))


def watched_queries(module: str) -> dict[str, Ask]:
    """Return the watched queries of a module by the name of each case."""
    return {
        name: ask
        for query, cases in WATCHED.items()
        if query.__module__ == module
        for name, ask in cases.items()
    }
