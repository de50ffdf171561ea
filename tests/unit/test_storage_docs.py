"""docs/storage.md names every table, its chunks and every database role, and no others."""

from __future__ import annotations

from chargewatch.storage.roles import DUTIES, FUNCTION_RIGHTS, RIGHTS
from chargewatch.storage.tables import CHUNK_INTERVALS, metadata
from documents import code, first_codes, rows, section

TABLES = section("storage.md", "Tables and their chunks")


def test_every_table_is_documented_once() -> None:
    assert sorted(first_codes(TABLES)) == sorted(metadata.tables)


def test_chunks_are_those_of_the_hypertables() -> None:
    chunks = {name: row[3] for row in rows(TABLES) for name in code(row[0])}
    assert {name: chunk for name, chunk in chunks.items() if chunk != "–"} == CHUNK_INTERVALS


def test_every_database_role_and_function_is_documented() -> None:
    roles = section("storage.md", "Roles")
    assert first_codes(roles) == [f"chargewatch_{duty}" for duty in DUTIES]
    for name in FUNCTION_RIGHTS:
        assert f"`{name}`" in roles, name


def test_tables_that_a_role_may_not_even_read_are_those_without_rights() -> None:
    for row in rows(section("storage.md", "Roles")):
        duty = code(row[0])[0].removeprefix("chargewatch_")
        if duty == "migrate":
            continue
        closed = {table for table, rights in RIGHTS.items() if duty not in rights}
        assert set(code(row[3])) == closed, duty
