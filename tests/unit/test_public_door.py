"""Limits by address and forms that age, by a clock that a test sets."""

from __future__ import annotations

import pytest

from chargewatch.api.errors import ApiError
from chargewatch.api.public_door import (
    LEAST_FILL_S,
    LONGEST_FILL_S,
    MOST_NETWORKS,
    AgingForms,
    Allowance,
)


class Clock:
    now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


def taken(allowance: Allowance, address: str, times: int) -> int:
    """Return how many of several tries pass."""
    passed = 0
    for _ in range(times):
        try:
            allowance.take(address)
        except ApiError:
            continue
        passed += 1
    return passed


def test_an_address_has_so_many_in_a_time() -> None:
    clock = Clock()
    allowance = Allowance(most=3, window_s=60, clock=clock)
    assert taken(allowance, "192.0.2.1", 5) == 3
    assert taken(allowance, "192.0.2.2", 5) == 3
    clock.now_s += 59
    with pytest.raises(ApiError) as refused:
        allowance.take("192.0.2.1")
    assert (refused.value.status, refused.value.headers["Retry-After"]) == (429, "1")
    clock.now_s += 1
    assert taken(allowance, "192.0.2.1", 5) == 3


def test_an_address_of_ipv6_is_its_network() -> None:
    allowance = Allowance(most=2, window_s=60)
    assert sum(taken(allowance, f"2001:db8::{n}", 1) for n in range(9)) == 2
    assert taken(allowance, "2001:db8:0:1::1", 1) == 1
    assert taken(allowance, "::ffff:192.0.2.1", 1) == 1


def test_no_crowd_of_addresses_fills_the_memory() -> None:
    allowance = Allowance(most=1, window_s=60)
    for n in range(MOST_NETWORKS + 10):
        allowance.take(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}")
    assert len(allowance._taken) == MOST_NETWORKS


def test_a_form_is_taken_between_its_times_and_once() -> None:
    clock = Clock()
    forms = AgingForms(clock=clock)
    mark = forms.mark("P-1")
    assert forms.problem(mark, "P-1") == "too_fast"
    clock.now_s += LEAST_FILL_S
    assert forms.problem(mark, "P-1") == ""
    assert forms.problem(mark, "P-2") == "stale"
    forms.use(mark)
    assert forms.problem(mark, "P-1") == "sent_already"
    forms.forget(mark)
    assert forms.problem(mark, "P-1") == ""
    clock.now_s += LONGEST_FILL_S
    assert forms.problem(mark, "P-1") == "stale"


@pytest.mark.parametrize(
    "mark",
    ["", ".", "..", "1.x.y", "nan.x." + "0" * 64, "9e9.x." + "0" * 64, "é.\udce9.x", "x" * 9_999],
)  # fmt: skip
def test_a_made_up_mark_is_stale(mark: str) -> None:
    assert AgingForms().problem(mark, "P-1") == "stale"


def test_a_mark_of_another_process_is_stale() -> None:
    clock = Clock()
    mark = AgingForms(clock=clock).mark("P-1")
    clock.now_s += 60
    assert AgingForms(clock=clock).problem(mark, "P-1") == "stale"
