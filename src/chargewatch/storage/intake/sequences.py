"""What the numbers of a stream's messages say: how far it has come, what is missing, restarts.

Pure: it knows the state of a stream and the gaps near the numbers of a batch, and tells what
changes. What a batch costs depends on its messages, not on how many gaps a stream has.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

MOST_GAPS = 1_000
"""Open gaps that are kept one by one for a stream. At a message every 15 s that is half of four
hours' messages lost singly; a gateway with more of them doesn't count, or its line is broken."""

GAPS_LEFT = 900
"""To so many the oldest gaps are summed up when there are more than MOST_GAPS; the room between
makes that rare, so that a gateway that uses its clock as `seq` costs what any other does."""

MOST_RATE = 20.0
"""Messages a second of one topic beyond which a jump is no loss but a jump of the counter."""

MOST_MISSING = 1_000
"""A jump by fewer numbers counts as lost messages at any rate."""

MOST_RESTARTS_KEPT = 20

_CLOCK_SLACK_US = 86_400_000_000
"""A `sent_at` further ahead of its arrival is no time to compare others with."""


class Number(NamedTuple):
    """One message's number, when it says it was sent (if it does), and when it arrived."""

    seq: int
    sent_us: int | None
    received_us: int


@dataclass(slots=True)
class Gap:
    """Numbers that are missing, both ends included; the times are of the messages around them."""

    count_no: int
    first: int
    last: int
    from_us: int | None
    to_us: int | None
    implausible: bool
    found_us: int
    gap_id: int | None = None
    changed: bool = False

    @property
    def size(self) -> int:
        """How many numbers are missing."""
        return self.last - self.first + 1


@dataclass(slots=True)
class Sequence:
    """The present count of a stream, and the gaps that a batch may touch.

    Where:
        count_no: how often the gateway has begun to count anew.
        first, last: lowest and highest number of the present count; None before the first.
        newest_us: newest `sent_at` of the present count, as far as it can be right.
        since_us: when the present count began.
        open_gaps: how many were open before the batch.
    """

    count_no: int = 0
    first: int | None = None
    last: int | None = None
    newest_us: int | None = None
    since_us: int | None = None
    open_gaps: int = 0
    closed: list[Gap] = field(default_factory=list)  # gaps of the database that were filled
    restarts_us: list[int] = field(default_factory=list)
    _by_count: dict[int, list[Gap]] = field(default_factory=dict)

    def know(self, gaps: Iterable[Gap]) -> None:
        """Take in open gaps of the database."""
        for gap in sorted(gaps, key=lambda known: known.first):
            self._by_count.setdefault(gap.count_no, []).append(gap)

    def reaches_back(self, numbers: Iterable[Number]) -> bool:
        """Whether a number of a batch may lie in a gap that was open before it."""
        if self.last is None:
            return False
        last = self.last
        return any(n.seq <= last or self._is_older(n.sent_us) for n in numbers)

    @property
    def opened(self) -> list[Gap]:
        """Gaps that are new and still open."""
        return [gap for gap in self._open() if gap.gap_id is None]

    @property
    def shrunk(self) -> list[Gap]:
        """Gaps of the database that are smaller now."""
        return [gap for gap in self._open() if gap.gap_id is not None and gap.changed]

    def _open(self) -> Iterable[Gap]:
        return (gap for gaps in self._by_count.values() for gap in gaps)

    def take(self, seq: int, sent_us: int | None, received_us: int) -> None:
        """Take in the number of one message, in order of arrival.

        A number above the last goes on, whatever its time. One of a gap fills it. Otherwise, when
        it was sent after everything else of the count, and is 1 or at most half of the last, the
        gateway has begun to count anew; everything else has been there already: the same bytes
        again, or (near the last number) a gateway that stamps its repetitions anew.
        """
        if sent_us is not None and sent_us > received_us + _CLOCK_SLACK_US:
            sent_us = None
        if self.first is None or self.last is None:
            self.first = self.last = seq
            self._begin(sent_us, received_us)
        elif seq == self.last + 1:
            self.last = seq
            self._advance(sent_us, received_us)
        elif self._is_older(sent_us):
            # A message of an earlier count, from the gateway's store.
            for count_no in range(self.count_no - 1, -1, -1):
                if self._fill(count_no, seq, sent_us):
                    return
            self._fill(self.count_no, seq, sent_us)
        elif seq > self.last:
            self._open_gap(self.last + 1, seq - 1, sent_us, received_us)
            self.last = seq
            self._advance(sent_us, received_us)
        elif not self._fill(self.count_no, seq, sent_us):
            self._behind(seq, sent_us, received_us, first=self.first, last=self.last)

    def _behind(
        self, seq: int, sent_us: int | None, received_us: int, *, first: int, last: int
    ) -> None:
        goes_on = sent_us is not None and self.newest_us is not None and sent_us > self.newest_us
        if goes_on and (seq == 1 or 2 * seq <= last):
            self.count_no += 1
            self.restarts_us = [*self.restarts_us, int(sent_us or 0)][-MOST_RESTARTS_KEPT:]
            if seq > 1:
                self._open_gap(1, seq - 1, sent_us, received_us)
            self.first, self.last = 1, seq
            self._begin(sent_us, received_us)
        elif seq < first:
            if seq + 1 < first:
                self._open_gap(seq + 1, first - 1, sent_us, received_us)
            self.first = seq

    def _begin(self, sent_us: int | None, received_us: int) -> None:
        # Nothing is sent after it has arrived: where no time was told, or an impossible one.
        self.newest_us = received_us if sent_us is None else sent_us
        self.since_us = min(self.newest_us, received_us)

    def _advance(self, sent_us: int | None, received_us: int) -> None:
        newest_us = received_us if sent_us is None else sent_us
        if self.newest_us is None or newest_us > self.newest_us:
            self.newest_us = newest_us

    def _is_older(self, sent_us: int | None) -> bool:
        return (
            self.count_no > 0
            and sent_us is not None
            and self.since_us is not None
            and sent_us < self.since_us
        )

    def _open_gap(self, first: int, last: int, sent_us: int | None, received_us: int) -> None:
        to_us = received_us if sent_us is None else min(sent_us, received_us)
        # Without a time before it nothing speaks against the jump but its size.
        elapsed_s = 0.0 if self.newest_us is None else max(to_us - self.newest_us, 0) / 1e6
        size = last - first + 1
        gaps = self._by_count.setdefault(self.count_no, [])
        gap = Gap(
            self.count_no,
            first,
            last,
            min(self.newest_us or to_us, to_us),
            to_us,
            size > MOST_MISSING and size > MOST_RATE * elapsed_s,
            received_us,
        )
        bisect.insort(gaps, gap, key=lambda known: known.first)

    def _fill(self, count_no: int, seq: int, sent_us: int | None) -> bool:
        """Take a number out of the gap that holds it; False when none does."""
        gaps = self._by_count.get(count_no, [])
        place = bisect.bisect_right(gaps, seq, key=lambda known: known.first) - 1
        if place < 0 or gaps[place].last < seq:
            return False
        gap = gaps[place]
        if gap.first == gap.last:
            del gaps[place]
            if gap.gap_id is not None:
                self.closed.append(gap)
        elif seq == gap.first:
            gap.first, gap.from_us, gap.changed = seq + 1, sent_us, True
        else:
            if seq < gap.last:
                later = replace(gap, first=seq + 1, from_us=sent_us, gap_id=None)
                gaps.insert(place + 1, later)
            gap.last, gap.to_us, gap.changed = seq - 1, sent_us, True
        return True
