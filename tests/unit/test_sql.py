"""Statements by name: how their parameters are read, and what is refused."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

from chargewatch import storage
from chargewatch.storage import sql
from chargewatch.storage.newest_run import NEWEST_RUN
from chargewatch.storage.sql import Statement


def test_parameters_become_numbers_in_the_order_of_their_appearance() -> None:
    found = Statement(
        "sample",
        "SELECT 1::int, CAST(:b AS int), '1:2', x[2:3] FROM t WHERE b > :b "
        "AND c = :a_1 AND d = '{\"a\": 1}'",
    )
    assert found.parameters == ("b", "a_1")
    assert found.numbered == (
        "SELECT 1::int, CAST($1 AS int), '1:2', x[2:3] FROM t WHERE b > $1 "
        "AND c = $2 AND d = '{\"a\": 1}'"
    )
    assert found.arguments({"a_1": "second", "b": "first"}) == ["first", "second"]


def test_both_forms_of_a_statement_have_the_same_parameters() -> None:
    for module in pkgutil.walk_packages(storage.__path__, f"{storage.__name__}."):
        importlib.import_module(module.name)
    assert len(sql.DECLARED) > 40
    for found in sql.DECLARED.values():
        if "{" not in found.sql.replace("'{", ""):
            assert set(found.text.compile().params) == set(found.parameters), found.name


@pytest.mark.parametrize("values", [{}, {"a": 1}, {"a": 1, "c": 2}, {"a": 1, "b": 2, "c": 3}])
def test_values_that_do_not_fit_are_refused(values: dict[str, int]) -> None:
    with pytest.raises(TypeError, match=r"statement 'sample' takes a, b, not "):
        Statement("sample", "SELECT :a, :b").arguments(values)


def test_a_name_stands_for_one_statement() -> None:
    with pytest.raises(ValueError, match="two statements are called 'newest run'"):
        sql.statement(NEWEST_RUN.name, "SELECT 1")


def test_a_cast_that_hides_a_parameter_is_refused() -> None:
    with pytest.raises(ValueError, match=r"write CAST\(:days AS \.\.\.\)"):
        sql.statement("sample", "SELECT :days::int")


def test_parts_are_put_in_before_parameters_are_read() -> None:
    template = Statement("sample", "SELECT 1 FROM t{where} LIMIT :limit")
    narrowed = template.filled(where=" WHERE a = :a")
    assert narrowed.numbered == "SELECT 1 FROM t WHERE a = $1 LIMIT $2"
    assert template.filled(where=" WHERE a = :a") is narrowed
