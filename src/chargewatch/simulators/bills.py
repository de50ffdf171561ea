"""Finished sessions as gateways tell them: registers, tariff periods, fees, signed records."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargewatch.domain.arrays import Floats, Ints
from chargewatch.simulators.batteries import Batteries
from chargewatch.simulators.billing import Periods, fee_cents, money, price, split_periods
from chargewatch.simulators.clocks import Clocks
from chargewatch.simulators.draws import Draws
from chargewatch.simulators.faults import Fault, Faults
from chargewatch.simulators.honest_bills import HonestBills
from chargewatch.simulators.layout import Layout
from chargewatch.simulators.metering import Block, EnergyLedger
from chargewatch.simulators.ocmf import Reading, ocmf_record, public_key_hex
from chargewatch.simulators.readings import SIX_DIGITS_WH, Registers


@dataclass(frozen=True, kw_only=True)
class Finished:
    """Finished sessions as arrays, before they become text; shape (k,)."""

    row: Ints
    start_wh: Floats
    stop_wh: Floats
    billed_wh: Floats
    energy_cents: Ints
    service_cents: Ints
    periods: Periods
    period_wh: Floats

    @property
    def metered_wh(self) -> Floats:
        """Energy by the register, counted through where it went on at 0."""
        energy = self.stop_wh - self.start_wh
        rolled = (energy < 0) & (self.start_wh >= 0.9 * SIX_DIGITS_WH)
        return np.where(rolled, energy + SIX_DIGITS_WH, energy)


class Bills:
    """Bills finished sessions, with the faults of billing."""

    def __init__(
        self,
        layout: Layout,
        draws: Draws,
        faults: Faults,
        *,
        ledger: EnergyLedger,
        registers: Registers,
        clocks: Clocks,
        batteries: Batteries,
    ) -> None:
        self._layout, self._draws = layout, draws
        self._ledger, self._registers = ledger, registers
        self._clocks = clocks
        self._all_faults = faults
        self._faults: dict[int, Fault] = {i: found[0] for i, found in faults.of_connector.items()}
        n = layout.connectors.size
        self.batteries = batteries
        self._honest = HonestBills(draws, faults)
        self._unscoped = set(faults.of_kind("signed_scope"))
        self._shift_s = np.zeros(n)
        self._price_factor = np.ones(n)
        for i, fault in faults.of_kind("tou_clock").items():
            self._shift_s[i] = fault["offset_s"]
        for i, fault in faults.of_kind("tariff").items():
            self._price_factor[i] = 1 + fault["extra"]
        self._page: dict[int, int] = {}
        self._last_record: dict[int, str] = {}

    def finished(self, block: Block, rows: Ints) -> Finished:
        """Return the bills of sessions of a block."""
        s = block.sessions
        connector = s.connector[rows]
        start = self._register(block, connector, s.start_s[rows])
        stop = self._register(block, connector, s.end_s[rows])
        periods = split_periods(
            self._layout.stations.plan[self._layout.connectors.station[connector]],
            s.start_s[rows],
            end_s=s.end_s[rows],
            from_local_s=self._ledger.from_local_s,
            zone=self._clocks.zone,
            shift_s=self._billing_shift_s(connector, s.start_s[rows]),
        )
        if np.any(self._shift_s[connector]):
            self._count_moved(block, rows, periods)
        of_period = connector[periods.session]
        energy = self._register(block, of_period, periods.end_s)
        energy = np.round(energy - self._register(block, of_period, periods.begin_s), 3)
        billed = np.round(stop - start, 3)
        billed, energy = self._overbilled(s.connector[rows], rows, block, (billed, energy, periods))
        for k, _ in self._hits("zero_baseline", connector, rows, block):
            billed[k] += start[k]
            energy[np.flatnonzero(periods.session == k)[0]] += start[k]
            start[k] = 0.0
        factor = self._price_factor[of_period]
        address = (connector, s.day[rows], s.number[rows])
        prices = self._honest.prices(
            np.round(periods.energy_price_e4 * factor).astype(np.int64),
            periods.service_price_e4,
            periods.session,
            address,
        )
        periods = replace(periods, energy_price_e4=prices[0], service_price_e4=prices[1])
        cents = [
            np.bincount(periods.session, weights=fee_cents(energy, p), minlength=rows.size)
            for p in (periods.energy_price_e4, periods.service_price_e4)
        ]
        return Finished(
            row=rows,
            start_wh=self._registers.shown_wh(connector, start),
            stop_wh=self._registers.shown_wh(connector, stop),
            billed_wh=billed,
            energy_cents=self._overcharged(connector, rows, block, cents[0].astype(np.int64)),
            service_cents=cents[1].astype(np.int64),
            periods=periods,
            period_wh=energy,
        )

    def _billing_shift_s(self, connector: Ints, start_s: Floats) -> Floats:
        """Return by how much prices change too late: by the gateway's clock, or one of their own.

        Where the clock is ahead, they change too early.
        """
        clock = self._clocks.shift_s(self._layout.connectors.station[connector], start_s)
        return np.where(clock == 0, self._shift_s[connector], -clock)

    def _count_moved(self, block: Block, rows: Ints, told: Periods) -> None:
        """Count sessions whose energy falls into other periods by a billing clock that is off."""
        s = block.sessions
        connector = s.connector[rows]
        right = split_periods(
            self._layout.stations.plan[self._layout.connectors.station[connector]],
            s.start_s[rows],
            end_s=s.end_s[rows],
            from_local_s=self._ledger.from_local_s,
            zone=self._clocks.zone,
            shift_s=np.zeros(rows.size),
        )
        for k, i in enumerate(connector.tolist()):
            mine, other = right.session == k, told.session == k
            priced = [
                (
                    p.begin_s[m].tolist(),
                    p.energy_price_e4[m].tolist(),
                    p.service_price_e4[m].tolist(),
                )
                for p, m in ((right, mine), (told, other))
            ]
            if priced[0] != priced[1]:
                self._all_faults.strike("tou_clock", i)

    def _register(self, block: Block, connector: Ints, t_s: Floats) -> Floats:
        sample = self._ledger.sample(block, connector, t_s, want=("indicated",))
        return self._registers.told_wh(connector, t_s, sample)

    def _hits(self, name: str, connector: Ints, rows: Ints, block: Block) -> list[tuple[int, Any]]:
        """Return the places of sessions that a fault with a share strikes."""
        found = []
        s = block.sessions
        for k, i in enumerate(connector):
            fault = self._faults.get(int(i))
            if fault is None or fault.kind.name != name:
                continue
            row = rows[k]
            u = self._draws.uniform(name, i, s.day[row], s.number[row])
            if float(u[0]) < fault.parameters.get("share", 1.0):
                found.append((k, fault))
                self._all_faults.strike(name, int(i))
        return found

    def _overbilled(
        self,
        connector: Ints,
        rows: Ints,
        block: Block,
        bills: tuple[Floats, Floats, Periods],
    ) -> tuple[Floats, Floats]:
        billed, energy, periods = bills
        for k, fault in self._hits("loss_billing", connector, rows, block):
            mine = periods.session == k
            energy[mine] = np.round(energy[mine] * fault["ratio"], 3)
            billed[k] = np.round(energy[mine].sum(), 3)
        for k, fault in self._hits("billed", connector, rows, block):
            last = np.flatnonzero(periods.session == k)[-1]
            energy[last] += fault["extra_wh"]
            billed[k] += fault["extra_wh"]
        return billed, energy

    def _overcharged(
        self, connector: Ints, rows: Ints, block: Block, cents: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        for k, fault in self._hits("fee", connector, rows, block):
            cents[k] += max(5, round(cents[k] * fault["extra"]))
        return cents

    def told(self, block: Block, finished: Finished) -> list[dict[str, Any]]:
        """Return the sessions as JSON objects, in the order of ``finished``."""
        s, rows = block.sessions, finished.row
        connector = s.connector[rows]
        station = self._layout.connectors.station[connector]
        begin = self._clocks.texts(station, s.start_s[rows])
        end = self._clocks.texts(station, s.end_s[rows])
        periods = self._period_rows(finished, connector)
        batteries = self.batteries.told(s, rows)
        told = []
        for k, row in enumerate(rows):
            i = int(s.connector[row])
            energy_cents, service_cents = (
                int(finished.energy_cents[k]),
                int(finished.service_cents[k]),
            )
            session: dict[str, Any] = {
                "session": session_name(self._layout, block, int(row)),
                "connector": self._layout.connectors.name[i],
                "vehicle": vehicle_name(self._draws, int(s.vehicle[row])),
                "started_at": begin[k],
                "ended_at": end[k],
                "start_wh": _number(finished.start_wh[k]),
                "stop_wh": _number(finished.stop_wh[k]),
                "billed_wh": _number(finished.billed_wh[k]),
                "currency": "CNY",
                "energy_fee": money(energy_cents),
                "service_fee": money(service_cents),
                "total_fee": money(energy_cents + service_cents),
                "periods": periods[k],
                "stop_reason": "EmergencyStop" if s.interrupted[row] else "EVDisconnected",
            }
            address = (i, int(s.day[row]), int(s.number[row]))
            self._honest.tell(session, (energy_cents, service_cents), address)
            session |= batteries.row(k)
            if self._layout.connectors.signs[i]:
                session["signed"] = self._signed(i, int(row), block, (session, k))
            told.append(session)
        return told

    def _period_rows(self, finished: Finished, connector: Ints) -> list[list[dict[str, Any]]]:
        p = finished.periods
        rows: list[list[dict[str, Any]]] = [[] for _ in connector]
        station = self._layout.connectors.station[connector[p.session]]
        begin = self._clocks.texts(station, p.begin_s)
        end = self._clocks.texts(station, p.end_s)
        for k, session in enumerate(p.session):
            rows[int(session)].append(
                {
                    "from": begin[k],
                    "to": end[k],
                    "energy_wh": _number(finished.period_wh[k]),
                    "energy_price": price(int(p.energy_price_e4[k])),
                    "service_price": price(int(p.service_price_e4[k])),
                }
            )
        return rows

    def _signed(
        self, i: int, row: int, block: Block, told: tuple[dict[str, Any], int]
    ) -> dict[str, str]:
        session, _ = told
        page = self._page.get(i, 0) + 1
        self._page[i] = page
        secret = signing_secret(self._draws, self._layout, i)
        zero_wh = session["start_wh"] if i in self._unscoped else 0
        data = ocmf_record(
            self._layout.connectors.name[i],
            (
                Reading(
                    at=_ocmf_time(session["started_at"]),
                    energy_kwh=round((session["start_wh"] - zero_wh) / 1000, 6),
                    kind="B",
                ),
                Reading(
                    at=_ocmf_time(session["ended_at"]),
                    energy_kwh=round((session["stop_wh"] - zero_wh) / 1000, 6),
                    kind="E",
                ),
            ),
            page=page,
            secret=secret,
        )
        genuine = data
        rows = np.array([row])
        connector = np.array([i])
        for _, fault in self._hits("forged", connector, rows, block):
            old = f'"RV":{round(session["stop_wh"] / 1000, 6)}'
            new = f'"RV":{round(session["stop_wh"] / 1000 + fault["extra_kwh"], 6)}'
            data = new.join(data.rsplit(old, 1))
        if self._hits("replayed", connector, rows, block) and i in self._last_record:
            data = self._last_record[i]
        self._last_record[i] = genuine
        return {"format": "OCMF", "data": data, "public_key": public_key_hex(secret)}


def signing_secret(draws: Draws, layout: Layout, connector: int) -> int:
    """Return the number that a connector's signing key is derived from."""
    station = int(layout.connectors.station[connector])
    position = connector - int(layout.stations.first[station])
    high = int(draws.bits("signing key", station, position)[0])
    return (high << 64) + int(draws.bits("signing key low", station, position)[0])


def session_name(layout: Layout, block: Block, row: int) -> str:
    """Return a session's identifier."""
    s = block.sessions
    connector = layout.connectors.name[int(s.connector[row])]
    return f"S-{connector}-{int(s.day[row]):04d}-{int(s.number[row]):02d}"


def vehicle_name(draws: Draws, vehicle: int) -> str:
    """Return a vehicle's pseudonym, as an operator would make it by a keyed hash."""
    return f"v-{int(draws.bits('pseudonym', vehicle)[0]):016x}"


def _ocmf_time(text: str) -> str:
    """Return OCMF's form of a time: 2026-03-01T08:15:00,000+0800."""
    moment, offset = text[:19], text[-6:]
    millis = text[20:23] if text[19] == "." else "000"
    return f"{moment},{millis}{offset.replace(':', '')}"


def _number(value: float) -> float | int:
    return int(value) if float(value).is_integer() else round(float(value), 3)
