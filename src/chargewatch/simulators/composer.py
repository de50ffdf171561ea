"""Puts what gateways read and bill into messages: the JSON items of each topic."""

from __future__ import annotations

import numpy as np
import orjson
from numpy.typing import NDArray

from chargewatch.domain.arrays import Ints
from chargewatch.simulators.bills import session_name
from chargewatch.simulators.clocks import Clocks
from chargewatch.simulators.draws import Draws
from chargewatch.simulators.faults import Faults
from chargewatch.simulators.layout import Layout
from chargewatch.simulators.metering import Block
from chargewatch.simulators.readings import CONTEXTS, Readings
from chargewatch.simulators.wire_form import reading_texts

Objects = NDArray[np.object_]


class Composer:
    """Writes readings as JSON; times are those of the stations' clocks."""

    def __init__(
        self,
        layout: Layout,
        draws: Draws,
        *,
        clocks: Clocks,
        electrical: bool,
        faults: Faults,
    ) -> None:
        self._layout, self._draws = layout, draws
        self._clocks = clocks
        self._electrical = electrical
        self._faults = faults
        self._nameless = np.isin(layout.connectors.station, list(faults.of_kind("late_session")))
        self._conflicts = faults.of_kind("conflict")
        self._names: Objects = np.array(layout.connectors.name, dtype=object)
        self._soc: Objects = np.array([f',"soc_pct":{k}' for k in range(101)] + [""], dtype=object)
        self._contexts: Objects = np.array(
            [f',"context":"{name}"' if name else "" for name in CONTEXTS], dtype=object
        )

    def readings(self, block: Block, readings: Readings) -> list[str]:
        """Return readings as JSON objects, in their order."""
        station = self._layout.connectors.station[readings.connector]
        read_s = self._clocks.read_s(station, readings.t_s)
        return reading_texts(
            self._names[readings.connector].tolist(),
            self._clocks.texts(station, read_s),
            energy_wh=readings.energy_wh,
            power_w=readings.power_w,
            extra=self._extras(block, readings),
        )

    def _extras(self, block: Block, readings: Readings) -> list[str]:
        """Return what a reading tells of its session: name, SOC, context, voltage and current."""
        inside = np.flatnonzero(readings.row >= 0)
        rows, which = np.unique(readings.row[inside], return_inverse=True)
        names: Objects = np.array(
            [f',"session":"{session_name(self._layout, block, int(row))}"' for row in rows],
            dtype=object,
        )
        names[self._nameless[block.sessions.connector[rows]]] = ""
        soc = np.where(np.isnan(readings.soc_pct[inside]), 101, readings.soc_pct[inside])
        told = self._soc[soc.astype(np.int64)]
        context = self._contexts[readings.context[inside]]
        extra = np.full(readings.size, "", dtype=object)
        if inside.size:
            extra[inside] = names[which] + told + context
            if self._electrical:
                extra[inside] += self._electricity(readings, inside)
        outside = np.flatnonzero((readings.row < 0) & (readings.context > 0))
        extra[outside] = self._contexts[readings.context[outside]]
        found: list[str] = extra.tolist()
        return found

    def _electricity(self, readings: Readings, inside: Ints) -> Objects:
        connector = readings.connector[inside]
        is_dc = self._layout.connectors.is_dc[connector]
        wave = self._draws.normal("voltage", connector, readings.t_s[inside].astype(np.int64))
        soc = np.nan_to_num(readings.soc_pct[inside], nan=50.0)
        volts = np.round(np.where(is_dc, 340 + 0.9 * soc, 229.0) * (1 + 0.005 * wave), 1)
        amperes = np.round(readings.power_w[inside] / volts, 2)
        texts = [
            f',"voltage_v":{v},"current_a":{a}'
            for v, a in zip(volts.tolist(), amperes.tolist(), strict=True)
        ]
        return np.array(texts, dtype=object)

    def conflicting(self, readings: Readings, texts: list[str], span: tuple[int, int]) -> list[str]:
        """Return readings of a span that are sent again with another value."""
        again = []
        for k in range(*span):
            fault = self._conflicts.get(int(readings.connector[k]))
            if fault is None:
                continue
            u = self._draws.uniform("conflict", readings.connector[k], int(readings.t_s[k]))
            if float(u[0]) < fault["share"]:
                row = orjson.loads(texts[k])
                row["energy_wh"] += fault["extra_wh"]
                self._faults.strike("conflict", int(readings.connector[k]))
                again.append(orjson.dumps(row).decode())
        return again
