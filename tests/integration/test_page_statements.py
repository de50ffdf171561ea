"""No page reads a hypertable from begin to end."""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
from inspect import signature
from typing import Any

import pytest
from sqlalchemy import text

from chargewatch.benches.storage_city import (
    CitySize,
    reading_batches,
    write_registry,
    write_rollups,
)
from chargewatch.errors import NotFoundError
from chargewatch.runs.rollups import rollup_kinds
from chargewatch.storage import pages
from chargewatch.storage.bulk import copy_records_in
from chargewatch.storage.database import Database, open_database
from chargewatch.storage.intake.readings import REGISTERS
from chargewatch.storage.pages import statements
from chargewatch.storage.pages.statements import (
    PAGE_MODULES,
    PAGE_QUERIES,
    explain_pages,
    time_pages,
)
from chargewatch.storage.pages.watched import WATCHED


async def fill(database: Database, size: CitySize) -> None:
    async with database.raw() as connection:
        await write_registry(connection, size)
        await write_rollups(connection, size, kinds=rollup_kinds())
        for batch in reading_batches(size, REGISTERS.row, batch=5_000):
            await copy_records_in(connection, "register_reading", batch)
        await connection.execute("ANALYZE")


async def test_no_page_scans_a_hypertable(any_database_url: str) -> None:
    async with open_database(any_database_url) as database:
        await fill(database, CitySize(connectors=1_200, days=10))
        plans = await explain_pages(database)
        assert {plan.name for plan in plans} == set(PAGE_QUERIES)
        assert [(plan.name, plan.faults) for plan in plans if plan.faults] == []
        # The same where the planner believes that a scan is never worth it: an index exists.
        strict = await explain_pages(database, need_index=True)
        assert [(plan.name, plan.faults) for plan in strict if plan.faults] == []
        if database.capabilities.hypertables:
            by_name = {plan.name: plan for plan in plans}
            assert by_name["pile: readings of a day"].chunks <= 3
        timings = await time_pages(database, runs=3)
        assert all(0 < timing.p50_s <= timing.p95_s <= timing.worst_s for timing in timings)


async def test_scan_of_a_hypertable_is_found(
    any_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_database(any_database_url) as database:
        await fill(database, CitySize(connectors=240, days=3))

        async def scan(connection: Any, sample: Any) -> None:
            await connection.execute(text("SELECT sum(energy_wh) FROM connector_interval"))

        monkeypatch.setitem(PAGE_QUERIES, "scan", scan)  # type: ignore[arg-type]
        plans = await explain_pages(database)
        assert {plan.name for plan in plans if plan.faults} == {"scan"}


async def test_empty_registry_is_told(database_url: str) -> None:
    async with open_database(database_url) as database:
        with pytest.raises(NotFoundError, match="registry import"):
            await explain_pages(database)


def test_every_query_of_the_pages_is_watched() -> None:
    listed = {module.__name__ for module in PAGE_MODULES}
    for found in pkgutil.iter_modules(pages.__path__, f"{pages.__name__}."):
        module = importlib.import_module(found.name)
        for name, query in vars(module).items():
            own = inspect.iscoroutinefunction(query) and query.__module__ == module.__name__
            asks = own and next(iter(signature(query).parameters), "") == "connection"
            if asks and not name.startswith("_") and module is not statements:
                assert module.__name__ in listed, f"{module.__name__} is not in PAGE_MODULES"
                assert query in WATCHED, f"{name} of {module.__name__} does not say how it is asked"
                assert set(WATCHED[query]) <= set(PAGE_QUERIES)


def test_command_lists_plans(database_url: str, run_command: Any) -> None:
    done = run_command("db", "plans", "--json", env={"CHARGEWATCH_DATABASE_URL": database_url})
    assert done.returncode == 1
    assert "registry import" in done.stderr
    assert done.stdout == "" or json.loads(done.stdout)
