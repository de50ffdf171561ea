from __future__ import annotations

import json
import math

import pytest

from chargewatch.supervision.canonical import MOST_EXACT, canonical


@pytest.mark.parametrize("value", [MOST_EXACT + 1, -(MOST_EXACT + 1), 10**40])
def test_a_number_that_json_does_not_hold_is_told_with_every_digit(value: int) -> None:
    assert json.loads(canonical({"a": [value]})) == {"a": [str(value)]}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_told_in_words(value: float) -> None:
    assert json.loads(canonical({"a": {"b": value}})) == {"a": {"b": str(value)}}


def test_all_else_is_rfc_8785() -> None:
    # The example of its section 3.2.3, and numbers of appendix B.
    told = {
        "\u20ac": "Euro Sign",
        "1": True,
        "\r": None,
        "n": [333333333.33333329, 1e30, 4.5, 2e-3],
    }
    assert (
        canonical(told)
        == (
            '{"\\r":null,"1":true,"n":[333333333.3333333,1e+30,4.5,0.002],"\u20ac":"Euro Sign"}'
        ).encode()
    )
    assert canonical({"a": MOST_EXACT, "b": (1, 2)}) == b'{"a":9007199254740991,"b":[1,2]}'
