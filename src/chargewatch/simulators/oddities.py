"""The table of oddities: awkward, but honest. None of them may raise a signal."""

from __future__ import annotations

from chargewatch.simulators.fault_kind import FaultKind

ODDITIES = (
    FaultKind(
        name="slow_register",
        meaning="the register is refreshed every 60 s and read every 15 s while charging",
        parameters={"refresh_s": 60.0, "read_s": 15.0},
    ),
    FaultKind(
        name="coarse_register",
        meaning="the register has steps of 1 kWh, which the registry doesn't tell",
        parameters={"step_wh": 1000.0},
    ),
    FaultKind(
        name="float_register",
        meaning="the register is told in floating point, with noise of tenths of a Wh",
        parameters={"noise_wh": 0.2},
    ),
    FaultKind(
        name="six_digits",
        meaning="the register has six digits: it goes on at 0 after 999,999 Wh",
        needs="fine register",
    ),
    FaultKind(
        name="restored_register",
        meaning="a reboot between two sessions restores the register 15 Wh back",
        parameters={"begin_days": 6.0, "lost_wh": 15.0},
    ),
    FaultKind(
        name="new_meter",
        meaning="a new meter, declared, read at begin and end only: its first session makes its "
        "register a thousand times larger",
        needs="fine register",
        parameters={"begin_days": 6.0, "read_s": 86_400.0},
    ),
    FaultKind(
        name="reads_while_charging",
        meaning="the pile is read only while it charges",
    ),
    FaultKind(
        name="signed_scope",
        meaning="signed records count from 0 in each session, not from the register",
        needs="signature",
    ),
    FaultKind(
        name="no_service_fee",
        meaning="service fee and price are not told; the total has them",
    ),
    FaultKind(
        name="coupon",
        meaning="some customers pay less by a coupon, told as a discount",
        parameters={"part": 0.4, "value": 5.0},
    ),
    FaultKind(
        name="untold_coupon",
        meaning="some customers pay less by a coupon; only the lower total tells",
        parameters={"part": 0.4, "value": 5.0},
    ),
    FaultKind(
        name="parking",
        meaning="some customers pay for parking too, told as other fee",
        parameters={"part": 0.4, "value": 6.0},
    ),
    FaultKind(
        name="prepaid",
        meaning="some customers have paid before: all fees are 0, prices are told",
        parameters={"part": 0.4},
    ),
    FaultKind(
        name="free",
        meaning="some sessions are free: prices and fees are 0",
        parameters={"part": 0.4},
    ),
    FaultKind(
        name="member",
        meaning="some customers, members, have lower energy prices",
        parameters={"part": 0.4, "factor": 0.9},
    ),
    FaultKind(
        name="bundled",
        meaning="one price for energy and service, told as the energy's; the service's is 0",
    ),
    FaultKind(
        name="clock_behind",
        meaning="the clock of readings is 27 s behind that of sessions",
        on="station",
        parameters={"offset_s": -27.0},
    ),
    FaultKind(
        name="clock_set_back",
        meaning="the gateway's clock is 47 s ahead each morning and set back at 13:00",
        on="station",
        parameters={"offset_s": 47.0, "hour": 13.0, "read_s": 15.0},
    ),
    FaultKind(
        name="summer_time",
        meaning="the gateway tells its times in a zone with daylight saving",
        on="station",
    ),
    FaultKind(
        name="half_hour_zone",
        meaning="the gateway tells its times in a zone that is off by half an hour",
        on="station",
    ),
    FaultKind(
        name="late_session",
        meaning="the records of sessions come a day after their end; readings name no session",
        on="station",
        parameters={"delay_s": 86_400.0},
    ),
    FaultKind(
        name="constant_delay",
        meaning="every message is under way for 5 min",
        on="station",
        parameters={"delay_s": 300.0},
    ),
)
