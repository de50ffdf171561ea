"""The clocks of stations: by how much they are off, and in which zone they tell their times."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np

from chargewatch.domain.arrays import Floats, Ints
from chargewatch.domain.times import DAY_S
from chargewatch.simulators.faults import Faults
from chargewatch.simulators.layout import Layout
from chargewatch.simulators.wire_form import HOME_ZONE, OFFSET_S, time_text, time_texts

ZONES = {"summer_time": "Europe/Berlin", "half_hour_zone": "Asia/Kolkata"}
"""Of gateways that are set up for elsewhere, by oddity."""


class Clocks:
    """Tells times as the stations' gateways do.

    ``origin_s`` is the epoch time at which the simulation's clock is 0, ``zone`` that of the city.
    """

    def __init__(self, layout: Layout, faults: Faults, *, origin_s: float, zone: str) -> None:
        n = layout.stations.size
        self._origin_s = origin_s
        self.zone = zone
        self._offset_s = np.zeros(n)
        self._ahead_s = np.zeros(n)
        self._until_s = np.zeros(n)
        for k, fault in faults.of_kind("clock").items():
            self._offset_s[k] = fault["offset_s"]
        self._of_readings_s = np.zeros(n)
        for k, fault in faults.of_kind("clock_behind").items():
            self._of_readings_s[k] = fault["offset_s"]
        for k, fault in faults.of_kind("clock_set_back").items():
            self._ahead_s[k] = fault["offset_s"]
            self._until_s[k] = 3600 * fault["hour"]
        self._zone = np.array(["" if zone == HOME_ZONE else zone] * n, dtype=object)
        for name, elsewhere in ZONES.items():
            self._zone[list(faults.of_kind(name))] = elsewhere

    def is_plain(self, station: int) -> bool:
        """Return whether a clock is right and tells times of the home zone."""
        return not (self._offset_s[station] or self._ahead_s[station] or self._zone[station])

    def shift_s(self, station: Ints, t_s: Floats) -> Floats:
        """Return by how much clocks are ahead at simulation times, s."""
        shift = self._offset_s[station]
        if not np.any(self._ahead_s):
            return np.asarray(shift)
        of_day = (self._origin_s + OFFSET_S + t_s) % DAY_S
        return np.asarray(
            shift + np.where(of_day < self._until_s[station], self._ahead_s[station], 0.0)
        )

    def read_s(self, station: Ints, t_s: Floats) -> Floats:
        """Return the simulation times at which connectors were read by the clock that tells it.

        The gateway's own clock comes on top.
        """
        return np.asarray(t_s + self._of_readings_s[station])

    def texts(self, station: Ints, t_s: Floats) -> list[str]:
        """Return simulation times as RFC 3339 texts of stations."""
        told = self._origin_s + t_s + self.shift_s(station, t_s)
        texts = time_texts(told)
        zone = np.broadcast_to(self._zone[station], told.shape)
        elsewhere = np.flatnonzero(zone != "")
        for row in elsewhere.tolist():
            texts[row] = zoned_text(float(told[row]), ZoneInfo(zone[row]))
        return texts

    def text(self, station: int, t_s: float) -> str:
        """Return one time as ``texts`` does."""
        told = self._origin_s + t_s + self.shift_of(station, t_s)
        zone = self._zone[station]
        return zoned_text(told, ZoneInfo(zone)) if zone else time_text(told)

    def shift_of(self, station: int, t_s: float) -> float:
        """Return by how much one clock is ahead, s."""
        ahead = float(self._ahead_s[station])
        if ahead and (self._origin_s + OFFSET_S + t_s) % DAY_S >= self._until_s[station]:
            ahead = 0.0
        return float(self._offset_s[station]) + ahead


def zoned_text(epoch_s: float, zone: ZoneInfo) -> str:
    """Return a time as RFC 3339 in a zone, to the millisecond where there is one."""
    millis = round(epoch_s * 1000)
    moment = datetime.fromtimestamp(millis / 1000, UTC).astimezone(zone)
    return moment.isoformat(timespec="milliseconds" if millis % 1000 else "seconds")
