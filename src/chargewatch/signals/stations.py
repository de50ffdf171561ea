"""Facts of checks of stations: clocks, silence, messages, registry, and what failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chargewatch.domain.arrays import Bools, Floats, Ints

StationRows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Messages:
    """Messages in the order of their arrival; shape (m,)."""

    station: Ints
    sent_s: Floats
    received_s: Floats


@dataclass(frozen=True, kw_only=True)
class Clocks:
    """What stations say of their own clocks, shape (c,)."""

    station: Ints
    at_s: Floats
    offset_s: Floats


@dataclass(frozen=True, kw_only=True)
class SentTimes:
    """What tells of stations' clocks."""

    messages: Messages
    clocks: Clocks
    clock_limit_s: float


@dataclass(frozen=True, kw_only=True)
class Cadence:
    """How often connectors are read, shape (n,); NaN: never read in the window."""

    last_s: Floats
    usual_gap_s: Floats  # 95th percentile of the gaps between readings
    readings: Ints


@dataclass(frozen=True, kw_only=True)
class Listening:
    """When connectors were heard last, as of a moment."""

    cadence: Cadence
    station: Ints  # of each connector, shape (n,)
    as_of_s: float


@dataclass(frozen=True, kw_only=True)
class MessageGaps:
    """Holes in the sequence numbers of stations.

    Where:
        holes: {"station": row, "topic", "first_seq", "last_seq", "from_s", "to_s", "implausible"};
            from_s and to_s are when the messages around the hole were sent. A jump that is too
            large for that time counts as one, not as that many lost messages.
        crowded: streams with more gaps than are kept singly: {"station": row, "topic", "gaps",
            "missing", "at_s"}.
    """

    holes: StationRows
    crowded: StationRows = ()


@dataclass(frozen=True, kw_only=True)
class MessageCounts:
    """Streams and when they began to count anew.

    Where: streams: {"station": row, "topic", "restarted_s": times in order}.
    """

    streams: StationRows
    as_of_s: float


@dataclass(frozen=True, kw_only=True)
class Conflicts:
    """Keys that came with two values.

    Where: rows: {"kind": connector, meter or station, "row", "at_s", "detail", "id"}.
    """

    rows: StationRows


@dataclass(frozen=True, kw_only=True)
class Unregistered:
    """Instruments that nobody registered and that sent data; shape (k,)."""

    kind: str  # connector or meter
    rows: Ints  # of Fleet or References
    first_s: Floats
    last_s: Floats
    readings: Ints  # readings and sessions


@dataclass(frozen=True, kw_only=True)
class Sold:
    """Energy that connectors sold after their verification's end (or at all); shape (n,)."""

    valid_until_s: Floats  # end of the newest passed verification; NaN: there is none
    energy_wh: Floats
    first_s: Floats
    last_s: Floats
    registered: Bools  # of the others the platform can't know


@dataclass(frozen=True)
class LeftOut:
    """A station that a step of a run could not be done for."""

    station: int
    step: str
    error: str


@dataclass(frozen=True, kw_only=True)
class NotJudged:
    """What a run had to leave out."""

    left: Sequence[LeftOut]
    as_of_s: float
