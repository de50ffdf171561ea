"""Search and masks of the index of piles, without a database."""

from __future__ import annotations

import numpy as np
import orjson
from hypothesis import given
from hypothesis import strategies as st

from chargewatch.storage.pile_index import PileIndex

WORDS = st.text(st.sampled_from("aAbß中%_-0"), max_size=4)


def index_of(names: list[str], *, stations: list[str], station: list[int]) -> PileIndex:
    """Return an index of connectors with names, at stations with names."""
    upper = [name.upper().encode() for name in names]
    order = sorted(range(len(names)), key=upper.__getitem__)
    numbers = {
        "name_length": np.array([len(upper[k]) for k in order], dtype="<u1"),
        "name_order": np.array(order, dtype="<i4"),
        "station": np.array(station, dtype="<u1"),
        "operator": np.zeros(len(names), dtype="<u1"),
    }
    head = {
        "run_id": None,
        "operators": ["a"],
        "districts": [""],
        "newly_red": 0,
        "types": {name: column.dtype.str for name, column in numbers.items()},
    }
    return PileIndex.of(
        {
            "head": orjson.dumps(head),
            "stations": orjson.dumps(
                {
                    "station_id": [f"S{k}" for k in range(len(stations))],
                    "name": [name.lower() for name in stations],
                }
            ),
            "names": b"".join(upper[k] for k in order),
            **{name: column.tobytes() for name, column in numbers.items()},
        }
    )


@given(st.lists(WORDS, max_size=12), st.lists(WORDS, min_size=1, max_size=3), WORDS)
def test_search_finds_beginnings_of_names_and_parts_of_stations(
    names: list[str], stations: list[str], words: str
) -> None:
    station = [k % len(stations) for k in range(len(names))]
    found = index_of(names, stations=stations, station=station).found(words)
    assert found.tolist() == [
        name.upper().startswith(words.upper()) or words.lower() in stations[k].lower()
        for name, k in zip(names, station, strict=True)
    ]


def test_what_is_not_known_is_nobodys() -> None:
    index = index_of(["x", "y"], stations=["s"], station=[0, 0])
    assert index.of_operator("a").tolist() == [True, True]
    assert index.of_operator("b").tolist() == [False, False]
    assert index.at_station("S0").tolist() == [True, True]
    assert index.at_station("S9").tolist() == [False, False]
    assert index.flagged("silence").tolist() == []
