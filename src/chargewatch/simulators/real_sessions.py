"""Real charging sessions as contract messages: 1,878 DC sessions of one station in Switzerland.

Source: DESL, EPFL, "Level 3 electric vehicle charging dataset", MIT (see data/README.md). Times,
energies and states of charge are as measured. Assumed, because the data don't tell: the registers'
starting value, 180 kW of rated power and accuracy class 2. The true error of the two meters is
not known, so truth.json has null for it.

Times are local (Europe/Zurich) to the minute. In the hour that happens twice when summer time
ends, a time is taken as the first one. What is odd in the data stays as it is: one session has
268.9 kWh, more than any car of that time holds.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from importlib.resources import files
from typing import Any
from zoneinfo import ZoneInfo

from chargewatch.errors import InputFileError
from chargewatch.simulators.wire_form import dump

NAME = "real-sessions"
OPERATOR = "DESL-EPFL"
STATION = "EPFL-L3"
ZONE = ZoneInfo("Europe/Zurich")
CONNECTORS = {"CCS1": f"{STATION}-01-1", "CCS2": f"{STATION}-01-2"}
FIRST_REGISTER_MWH = 1_000_000_000  # milliwatt-hours: 1,000 kWh
PLACEHOLDER_CAPACITY_WH = 10_000.0


@dataclass(frozen=True, kw_only=True)
class RealSession:
    """One row of the file; energies in whole milliwatt-hours, so that sums are exact."""

    name: str
    connector: str
    started_at: datetime
    ended_at: datetime
    energy_mwh: int
    start_mwh: int
    soc_start_pct: float
    soc_stop_pct: float
    capacity_wh: float | None


def real_sessions() -> list[RealSession]:
    """Return all sessions in order of their begin, with the registers they begin at.

    Raises: InputFileError when two sessions of a connector overlap: a register would be read
    inside another session.
    """
    path = files("chargewatch.simulators").joinpath("data", "desl_epfl_dc_sessions.csv")
    with path.open("r", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    register = dict.fromkeys(CONNECTORS.values(), FIRST_REGISTER_MWH)
    busy_until = dict.fromkeys(CONNECTORS.values(), datetime.min.replace(tzinfo=UTC))
    found = []
    for row in sorted(rows, key=lambda r: (r["arrival"], int(r["session"]))):
        connector = CONNECTORS[row["connector"]]
        started, ended = _local(row["arrival"]), _local(row["departure"])
        if started < busy_until[connector]:
            raise InputFileError(f"{path}: session {row['session']} begins inside another one")
        busy_until[connector] = ended
        energy = round(float(row["energy_wh"]) * 1000)
        capacity = float(row["total_capacity_wh"])
        found.append(
            RealSession(
                name=f"DESL-{row['session']}",
                connector=connector,
                started_at=started,
                ended_at=ended,
                energy_mwh=energy,
                start_mwh=register[connector],
                soc_start_pct=float(row["soc_arrival_pct"]),
                soc_stop_pct=float(row["soc_departure_pct"]),
                capacity_wh=None if capacity == PLACEHOLDER_CAPACITY_WH else capacity,
            )
        )
        register[connector] += energy
    return found


def _local(text: str) -> datetime:
    local = datetime.fromisoformat(text).replace(tzinfo=ZONE)
    # A fixed offset: times of one ZoneInfo are compared by wall clock, also when summer time ends.
    return local.astimezone(timezone(local.utcoffset() or timedelta()))


def _wh(milliwatthours: int) -> float | int:
    whole, rest = divmod(milliwatthours, 1000)
    return milliwatthours / 1000 if rest else whole


class RealSessions:
    """The station as a source of registry, messages and truth."""

    def __init__(self) -> None:
        self.sessions = real_sessions()

    def registry(self) -> dict[str, Any]:
        """Return registry.json: one operator, one station, two DC connectors."""
        return {
            "version": 1,
            "operators": [{"operator_id": OPERATOR, "name": "DESL, EPFL"}],
            "stations": [
                {
                    "station_id": STATION,
                    "operator_id": OPERATOR,
                    "name": "EPFL level 3 charging station",
                    "longitude": 6.5668,
                    "latitude": 46.5191,
                    "address": "Ecublens, Switzerland",
                }
            ],
            "connectors": [
                {
                    "connector": name,
                    "pile": f"{STATION}-01",
                    "station_id": STATION,
                    "current": "DC",
                    "accuracy_class": "2",
                    "rated_power_w": 180_000.0,
                    "resolution_wh": 0.01,
                }
                for name in CONNECTORS.values()
            ],
            "reference_meters": [],
            "verifications": [],
            "tariffs": [],
        }

    def messages(self) -> Iterator[tuple[str, bytes]]:
        """Yield topic and payload in order of time: registers at begin and end, the session."""
        events: list[tuple[datetime, int, str, dict[str, Any]]] = []
        for session in self.sessions:
            begin, end = _readings(session)
            after = session.ended_at + timedelta(seconds=1)
            events.append((session.started_at, 2, "registers", begin))
            # An end sorts before the begin of the next session in the same minute.
            events.append((session.ended_at, 0, "registers", end))
            events.append((after, 1, "sessions", _session(session)))
        events.sort(key=lambda event: (event[0].timestamp(), event[1]))
        sequence = {"registers": 0, "sessions": 0}
        for at, _, kind, item in events:
            sequence[kind] += 1
            body = {
                "seq": sequence[kind],
                "sent_at": (at + timedelta(seconds=1)).isoformat(),
                "readings" if kind == "registers" else "sessions": [item],
            }
            yield f"cw/v1/{OPERATOR}/{STATION}/{kind}", dump(body)

    def truth(self) -> dict[str, Any]:
        """Return truth.json; the meters' errors are not known."""
        last = max(session.ended_at for session in self.sessions)
        return {
            "version": 1,
            "from": self.sessions[0].started_at.isoformat(),
            "to": last.isoformat(),
            "scenario": NAME,
            "connectors": [
                {
                    "connector": name,
                    "relative_error": None,
                    "changes": [],
                    "signals": ["verification_expired"],
                    "allowed_signals": ["silence", "soc_implausible"],
                    "faults": [],
                    "sessions": sum(s.connector == name for s in self.sessions),
                    "session_wh": _wh(
                        sum(s.energy_mwh for s in self.sessions if s.connector == name)
                    ),
                }
                for name in CONNECTORS.values()
            ],
            "messages": {
                "published": 3 * len(self.sessions),
                "distinct_readings": len(
                    {(s.connector, at) for s in self.sessions for at in (s.started_at, s.ended_at)}
                ),
                "sessions": len(self.sessions),
            },
        }


def _readings(session: RealSession) -> tuple[dict[str, Any], dict[str, Any]]:
    begin = {
        "connector": session.connector,
        "at": session.started_at.isoformat(),
        "energy_wh": _wh(session.start_mwh),
        "soc_pct": session.soc_start_pct,
        "session": session.name,
        "context": "Transaction.Begin",
    }
    end = {
        **begin,
        "at": session.ended_at.isoformat(),
        "energy_wh": _wh(session.start_mwh + session.energy_mwh),
        "soc_pct": session.soc_stop_pct,
        "context": "Transaction.End",
    }
    return begin, end


def _session(session: RealSession) -> dict[str, Any]:
    told: dict[str, Any] = {
        "session": session.name,
        "connector": session.connector,
        "started_at": session.started_at.isoformat(),
        "ended_at": session.ended_at.isoformat(),
        "start_wh": _wh(session.start_mwh),
        "stop_wh": _wh(session.start_mwh + session.energy_mwh),
        "billed_wh": _wh(session.energy_mwh),
        "soc_start_pct": session.soc_start_pct,
        "soc_stop_pct": session.soc_stop_pct,
    }
    if session.capacity_wh is not None:
        told["battery_capacity_wh"] = session.capacity_wh
    return told
