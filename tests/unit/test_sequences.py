"""What sequence numbers say: gaps, restarts, jumps."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from chargewatch.storage.intake.sequences import Sequence

S = 1_000_000
T0 = 1_800_000_000 * S
YEAR_2099 = 4_070_908_800 * S


def sequence(*messages: tuple[int, float] | tuple[int, float, float]) -> Sequence:
    """Take in (seq, sent at s[, received at s]); by default a message arrives when it is sent."""
    found = Sequence()
    for seq, sent_s, *received_s in messages:
        arrived = received_s[0] if received_s else sent_s
        found.take(seq, T0 + round(sent_s * S), T0 + round(arrived * S))
    return found


def gaps(found: Sequence) -> list[tuple[int, int, int]]:
    return sorted((gap.count_no, gap.first, gap.last) for gap in found.opened)


def test_a_restart_is_no_gap_and_old_gaps_stay_until_their_messages_come():
    found = sequence((40, 0), (42, 1), (1, 2), (2, 3))
    assert (found.count_no, found.first, found.last) == (1, 1, 2)
    assert gaps(found) == [(0, 41, 41)]
    found.take(41, T0 + S // 2, T0 + 60 * S)
    assert gaps(found) == []
    assert (found.count_no, found.last) == (1, 2)


def test_a_restart_whose_first_message_is_lost_shows_it():
    assert gaps(sequence((41, 0), (42, 1), (2, 2), (3, 3))) == [(1, 1, 1)]


def test_the_same_bytes_again_begin_no_count():
    again = [(seq, seq, 100 + seq) for seq in (1, 2, 3, 4)]
    found = sequence(*[(seq, seq) for seq in (1, 2, 3, 4)], *again, (5, 110))
    assert (found.count_no, found.last, gaps(found)) == (0, 5, [])


def test_messages_stamped_anew_near_the_last_begin_no_count():
    found = sequence(*[(seq, seq) for seq in range(1, 11)], (9, 20), (10, 21), (11, 22))
    assert (found.count_no, found.last, gaps(found)) == (0, 11, [])


def test_late_messages_fill_gaps_whatever_their_time():
    found = sequence((1, 0), (2, 1), (8, 2), (5, 3), (3, 4), (4, 4.5), (6, 5), (7, 0.5))
    assert (found.count_no, found.last, gaps(found)) == (0, 8, [])


def test_lower_numbers_from_before_belong_to_the_first_count():
    assert gaps(sequence((41, 100), (42, 101), (1, 60, 102))) == [(0, 2, 40)]


def test_a_clock_that_was_once_wrong_hides_no_restart_for_ever():
    found = sequence((41, 0))
    found.take(42, YEAR_2099, T0 + S)
    found.take(1, T0 + 2 * S, T0 + 2 * S)
    assert (found.count_no, found.last, gaps(found)) == (1, 1, [])
    found.take(4, T0 + 3 * S, T0 + 3 * S)
    assert gaps(found) == [(1, 2, 3)]


def test_a_clock_set_back_after_a_restart_hides_no_gap_of_the_new_count():
    found = sequence((41, 0), (1, 10), (2, 9), (3, 9.5), (6, 11))
    assert (found.count_no, gaps(found)) == (1, [(1, 4, 5)])


def test_a_gateway_that_always_says_one_restarts_at_every_message():
    assert sequence((1, 0), (1, 1), (1, 2), (1, 2, 3)).count_no == 2


def test_a_jump_that_nobody_can_have_sent_is_told_from_lost_messages():
    found = sequence((1, 0), (29, 30), (899_291, 45), (1_760_000_000_000, 60))
    assert [(g.first, g.last, g.implausible) for g in found.opened] == [
        (2, 28, False),
        (30, 899_290, True),
        (899_292, 1_759_999_999_999, True),
    ]
    away = sequence((1, 0), (899_291, 30 * 86_400.0))
    assert [gap.implausible for gap in away.opened] == [False]


def test_the_largest_number_is_a_number():
    assert gaps(sequence((2**63 - 2, 0), (2**63 - 1, 1), (1, 2), (2**63 - 1, 3))) == [
        (1, 2, 2**63 - 2)
    ]


@given(st.lists(st.integers(1, 40), min_size=1, max_size=60))
def test_gaps_are_what_was_not_seen(numbers):
    # In one moment nothing goes on: every number belongs to one count.
    found = sequence(*[(seq, 0) for seq in numbers])
    seen = set(numbers)
    missing = {n for _, first, last in gaps(found) for n in range(first, last + 1)}
    assert missing == set(range(min(seen), max(seen) + 1)) - seen
    assert (found.first, found.last) == (min(seen), max(seen))
    assert sum(gap.size for gap in found.opened) == len(missing)
