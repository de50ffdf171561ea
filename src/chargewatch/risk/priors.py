"""Every numeric prior of the engine: what it believes of the world before any data.

Each says what it means, its unit and where it comes from; docs/metrology.md shows them as a table
(`scripts/priors_table.py` writes it). Limits, tolerances and rules of decision are no priors and
stand where they are used. Relative quantities are fractions.

Sources: "judgement" is an order of magnitude that nobody measured for these piles.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Believed:
    """A normal prior: mean and standard uncertainty."""

    mean: float
    u: float


# Errors of indication, by the city's mixture.

SHARE_START = np.array([0.90, 0.05, 0.05])
"""Shares of the parts of the mixture of errors: bulk, and two wide ones. Unit: fraction. Source:
judgement."""
SHARE_COUNTS = np.array([45.0, 2.5, 2.5])
"""What the shares at the start weigh against the city's own. Unit: connectors. Source: judgement;
a city of some hundred piles speaks for itself."""
PART_SPREAD_START = np.array([0.35, 1.0, 3.0])
"""Standard deviations of the parts; only the first is estimated. Unit: MPE. Source: judgement; a
type approval leaves most piles in a third of their MPE."""
PART_SPREAD_COUNTS = 10.0
"""What the bulk's spread at the start weighs. Unit: connectors. Source: judgement."""
SPREAD_RANGE = (0.1, 0.7)
"""Least and largest spread of the bulk. Unit: MPE. Source: judgement; wider would be no bulk."""
MODEL_MEAN_SPREAD = 0.003
"""Spread of the mean error of one model of pile around zero. Unit: fraction. Source: judgement; a
maker adjusts better than a third of class 1."""
UNKNOWN_MPE = 0.02
"""MPE of a connector whose class nobody told. Unit: fraction. Source: JJG 1148-2022 and 1149-2022,
the widest class."""
DAY_WANDER_MPE = 0.1
"""Standard deviation of a good meter's error from day to day (temperature, load). Unit: MPE.
Source: judgement."""
DAY_SPREAD = 0.01
"""Spread of a day's error around the present one when a day is judged alone. Unit: fraction.
Source: wide on purpose; only what the day itself says is kept."""
CHANGES_PER_YEAR = 0.05
"""Share of connectors whose error changes in a year, steps and drifts alike. Unit: fraction.
Source: judgement; some repairs, replacements and faults in a hundred piles a year."""
CHANGE_SIZE_MPE = 2.0
"""Standard deviation of such a change. Unit: MPE. Source: judgement; less is hardly worth it."""
CHANGE_TAIL_DEGREES = 5.0
"""Degrees of freedom of the noise of days and sessions around a change. Unit: 1. Source:
judgement, as of sessions."""
DECLARED_CHANCE = 0.1
"""Chance that a declared work on a pile (cable, firmware of the metering, seal) changes its error.
Unit: fraction. Source: judgement; a new meter always does."""
OWN_NOISE_COUNTS = 10.0
"""What the usual noise between days weighs in a connector's own. Unit: differences of days. Source:
judgement."""
SITUATION_SHARE = 0.01
"""Share of connectors that err otherwise in some situation. Unit: fraction. Source: judgement, as
of offenders."""
SITUATION_SIZE_MPE = 3.0
"""Standard deviation of such a difference. Unit: MPE. Source: judgement; less isn't worth it."""

# Verifications.

ANCHOR_DRIFT_PER_YEAR = 0.005
"""Standard deviation of an error's wander in the year after a verification. Unit: fraction.
Source: judgement; the MPE has to hold for the period of three years. The city's own is found."""
WANDER_FACTOR = 2.0
"""Factor within which that wander is believed, one standard deviation. Unit: 1. Source:
judgement."""
WANDER_RANGE = (0.0005, 0.02)
"""Least and largest wander that is thought of. Unit: fraction. Source: judgement."""
VERIFIED_AT_MPE = np.array([0.1, 0.05])
"""Standard deviation between a meter's error at a verification's load and temperature and that over
all its energy, AC and DC: DC piles are verified at loads nearer to those of their use. Unit: MPE.
Source: judgement, as `DAY_WANDER_MPE`."""
TAMPERED_SHARE = 0.05
"""Share of verified connectors that were tampered with since. Unit: fraction. Source:
judgement."""
TAMPERED_SPREAD = 0.03
"""Spread of what tampering adds. Unit: fraction. Source: judgement."""

# Reference meters and clocks.

METER_FAULT_PRIOR = 0.005
"""Share of reference meters that are wrong by far more than their certificate. Unit: fraction.
Source: judgement."""
SUSPECT_U = 0.03
"""Standard uncertainty of a wrong reference meter. Unit: fraction. Source: judgement; one wrong
current transformer is worse and is seen all the same."""
UNKNOWN_METER_U = 0.01
"""Standard uncertainty of a meter without a stated one. Unit: fraction. Source: a class 2
meter's limit as a rectangle, rounded."""
METER_U_FLOOR = 1e-4
"""Least standard uncertainty of a reference meter. Unit: fraction. Source: no field meter is
better."""
EXPIRED_DRIFT_PER_YEAR = 0.002
"""Standard deviation of a meter's wander in the year after its certificate ended. Unit: fraction.
Source: judgement."""
CLOCK_OFFSET_U_S = 1.0
"""Standard uncertainty of the offset between two clocks at one instant, in-series. Unit: s.
Source: judgement; clocks set over the network."""
FEEDER_CLOCK = Believed(0.0, 5.0)
"""Offset between a gateway's clock and its feeder meter's. Unit: s. Source: judgement."""
SITUATION_CLOCK_U_S = 600.0
"""Standard uncertainty of that offset in the second look, which must find a lag of minutes.
Unit: s. Source: wide on purpose; thousands of ramps decide."""
UNKNOWN_METER_STEP_WH = 10.0
"""Step of a register of a feeder meter, or of a check of plausibility, that nobody told. Unit:
Wh. Source: usual registers, 1 to 10 Wh; the coarse one is the safe one here."""
UNKNOWN_STEP_WH = 1.0
"""Step of a connector's register, or of a meter in series, that nobody told. Unit: Wh. Source:
smallest step that JJG 1148-2022 asks for."""
UNKNOWN_POWER_W = 7000.0
"""Rated power of a connector that nobody told. Unit: W. Source: the most frequent AC pile."""

# Power between readings.

FLUCTUATION = 0.05
"""Relative wander of power within a span in which nothing was switched. Unit: fraction. Source:
judgement."""
SWITCHED = 0.78
"""The same when charging started or ended at an unknown moment of the span. Unit: fraction.
Source: a step at a uniform moment."""
DWELL_S = 3600.0
"""Mean time between switchings of a connector. Unit: s. Source: judgement; public charging."""

# Feeders: auxiliaries, losses, noise.

AUXILIARY = Believed(0.0, 1e5)
"""Auxiliary load of a feeder, constant part. Unit: W. Source: none; next to no prior."""
AUXILIARY_WAVE = Believed(0.0, 1e3)
"""Each of the four amplitudes of its daily waves. Unit: W. Source: lights and fans of a station,
judgement."""
FEEDER_LOSS = Believed(0.004, 0.003)
"""Loss between feeder meter and piles at rated power of all. Unit: fraction. Source: judgement;
a tenth of the voltage drop that installations may have."""
COMPENSATED_LOSS = Believed(0.005, 0.004)
"""Loss of the cable before what a compensated meter indicates, at full load. Unit: fraction.
Source: as `CABLE_LOSS`."""
CONVERTER_LOAD_LOSS = Believed(0.008, 0.012)
"""Loss of a DC converter that grows with the square of its load, at full load. Unit: fraction of
rated power. Source: judgement."""
CONVERTER_IDLE_LOSS = Believed(0.002, 0.004)
"""Constant loss of a DC converter while it works. Unit: fraction of rated power. Source:
judgement."""
CONVERTER_LIGHT_LOSS = Believed(0.03, 0.04)
"""Loss of a DC converter that vanishes with load, towards no load. Unit: fraction of energy.
Source: judgement."""
LIGHT_LOSS_SCALE = 0.1
"""Load below which that loss counts: it falls as exp(-load / scale). Unit: fraction of rated
power. Source: judgement."""
DC_EFFICIENCY = Believed(0.955, 0.012)
"""Efficiency of a class of DC converters at the margin. Unit: fraction. Source: 0.93 to
0.97 is what makers state."""
DC_SPREAD_START = 0.006
"""Spread of the efficiency of DC piles of one model. Unit: fraction. Source: judgement; the city's
own is estimated."""
DC_SPREAD_FLOOR = 0.0015
"""Least spread of it that is believed. Unit: fraction. Source: judgement."""
AC_EFFICIENCY = Believed(0.998, 0.002)
"""Efficiency of AC piles between feeder meter and their own. Unit: fraction. Source: contactors and
wiring lose 0.1 to 0.3 %, judgement; wide, because the level of all AC piles rests on it until
verified ones tell it."""
AC_SPREAD = 0.0005
"""Spread of that between AC piles, beyond the model. Unit: fraction. Source: judgement."""
WEAK_PRIOR = 0.03
"""Spread of ln(gain) where a feeder is solved on its own. Unit: fraction. Source: wide on purpose;
keeps idle columns finite."""
DAY_GAIN_U = 0.02
"""Spread of a gain where a day's residuals are made. Unit: fraction. Source: wide on purpose."""
SITUATION_GAIN_U = 0.05
"""Spread of a gain in the second look. Unit: fraction. Source: wide on purpose."""
LINE_U = 0.01
"""Spread of ln(gain) around the city's at the point of linearisation. Unit: fraction. Source: wide
on purpose; it moves that point only."""
WANDER_START_W = 15.0
"""Wander of the auxiliaries around their daily pattern. Unit: W. Source: judgement; a feeder's own
is estimated."""
WANDER_FLOOR_W2 = 1.0
"""Least variance of it. Unit: W^2. Source: resolution of what can be known."""
FLOOR_WH = 0.5
"""Least white noise of a slot. Unit: Wh. Source: registers of 1 Wh."""
LOAD_NOISE = 0.003
"""Shape of noise that grows with load; a feeder's own factor is estimated. Unit: fraction of the
slot's energy. Source: judgement."""
FIRST_LOAD_NOISE = 0.03
"""The same on a feeder's first day, whose losses are not known yet. Unit: fraction. Source: wide
on purpose."""
INTERVAL_TAIL_DEGREES = 4.0
"""Degrees of freedom of the Student weights of intervals. Unit: 1. Source: judgement."""
LEAK = 0.11
"""How unevenly two piles charge along before and after a change. Unit: fraction. Source:
sqrt(1/4 / 20 sessions)."""
ROBUST_PULL = 0.05
"""Share of a change that the weights of intervals may hide: they were judged beside the days before
it, so those that agree with them count more. Unit: fraction. Source: judgement."""
LIGHT_U = (0.001, 0.01)
"""What piles of one feeder may differ by at light load beyond the meter's error, AC and DC: the
converter's loss there is modelled for the feeder's piles together. Unit: fraction. Source:
judgement."""
LIGHT_AUXILIARIES_W = 10.0
"""What auxiliaries that follow the use of a station may come to beside a pile at light load.
Unit: W. Source: judgement; fans and screens."""
SAME_SIDE_U = (0.0, 0.0, 0.001, 0.0005, 0.0005)
"""What piles of one feeder may differ by in a window of each family of situations, beyond the
meter's error. Unit: fraction. Source: judgement."""
CROSSING_U = (0.0, 0.0, 0.006, 0.002, 0.002)
"""The same when a converter stands between: its efficiency over load is modelled for the feeder's
piles together. Unit: fraction. Source: judgement."""
SESSION_GAIN_U = 0.05
"""How far errors are believed to be off while sessions are looked through for situations. Unit:
fraction. Source: wide on purpose."""
SESSION_U_AC = (0.0, 0.0, 0.01, 0.003, 0.003)
"""What vehicles may differ by in a window of each family beyond the meter's error, on AC: an
on-board charger loses more of a small power. Unit: fraction. Source: judgement."""
SESSION_U_DC = (0.0, 0.0, 0.003, 0.003, 0.003)
"""The same on DC: cable, heating of a battery as charging begins. Unit: fraction. Source:
judgement."""
SCATTER_COUNTS = 20.0
"""What the city's usual scatter between days weighs in a connector's own. Unit: days. Source:
judgement."""

# Vehicles. By kind: BMS energy, SOC x capacity, SOC alone on AC; then the same on DC.

CABLE_LOSS = Believed(0.005, 0.003)
"""Loss of the cable after the meter at full load, one for AC and one for DC (kappa). Unit:
fraction. Source: 0.3 to 1 % by conductor, length and current; judgement."""
KIND_MEAN = Believed(0.0, 100.0)
"""Mean of ln(E / B) of a kind of battery energy. Unit: 1. Source: none; next to no prior."""
SITE_SPREAD_START = np.array([0.0006, 0.0004])
"""Spread between connectors of what their cables lose at full load, AC and DC: one cable in three
is a fifth longer or shorter than usual, the thicker cables of DC lose less. Unit: fraction. Source:
judgement; estimated where verifications allow."""
HABIT_SPREAD = 0.0002
"""Spread between connectors of what their sessions share at any load, habits of those who come.
Unit: fraction. Source: judgement."""
SITE_FACTOR = 2.0
"""Factor within which the spread of cables is believed, one standard deviation. Unit: 1. Source:
judgement."""
SESSION_SPREAD_START = np.array([0.02, 0.03, 0.03, 0.02, 0.03, 0.03])
"""Spread of a session's ln(E / B) by kind, resolution apart. Unit: fraction. Source: 1.2 to 5.4 %
within groups of vehicles in real DC sessions (DESL, EPFL)."""
SESSION_SPREAD_FLOOR = 0.002
"""Least spread of it that is believed. Unit: fraction. Source: judgement."""
VEHICLE_START = np.array([0.03, 0.05, 0.4, 0.03, 0.05, 0.4])
"""Spread of vehicles' own scale by kind; of SOC alone it holds the capacity. Unit: fraction.
Source: judgement; capacities from 20 to 100 kWh."""
VEHICLE_SPREAD_FLOOR = 0.003
"""Least spread of it that is believed. Unit: fraction. Source: judgement."""
SPREAD_COUNTS = 20.0
"""What the spreads at the start weigh against those of the data. Unit: sessions, vehicles or
connectors. Source: judgement."""
SOC_RESOLUTION = 0.01
"""Step of the state of charge that vehicles tell; two roundings give sqrt(2/12) of it. Unit:
fraction of the capacity. Source: ISO 15118-2 and GB/T 27930 (from memory), whole
per cent."""
SOC_FACTOR_START = np.ones(6)
"""Factor on the variance that this step makes, by kind; where SOC tells the energy it is estimated
and holds what vehicles don't know of their charge as well. Unit: 1. Source: the step alone."""
UNKNOWN_CAPACITY_WH = 6e4
"""Capacity of a battery that nobody told. Unit: Wh. Source: usual cars; the vehicle's own scale
takes what it is off."""
SESSION_TAIL_DEGREES = 5.0
"""Degrees of freedom of the Student weights of sessions, where too few sessions tell. Unit: 1.
Source: judgement; the city's own are estimated by kind (`risk.tails`)."""
VEHICLE_TAIL_DEGREES = 4.0
"""Degrees of freedom of the Student weights of vehicles' scales, where too few vehicles tell. Unit:
1. Source: judgement; the city's own are estimated by kind (`risk.tails`)."""
GARBAGE_SHARE = 0.05
"""Share of sessions whose battery energy or state of charge is garbage. Unit: fraction. Source:
judgement; the city's own is estimated by kind, and this weighs as much as `SPREAD_COUNTS`."""
GARBAGE_SPREAD = 0.4
"""Spread of ln(E / B) of those. Unit: fraction. Source: judgement."""
INTERRUPTED_LOOSENESS = 4.0
"""Factor on the variance of a session that was interrupted. Unit: 1. Source: judgement."""
SHORT_LOOSENESS = 2.0
"""Factor on the variance below 15 % of charge. Unit: 1. Source: judgement."""
FULL_LOOSENESS = 2.0
"""Factor on the variance of a session that ends above 97 %. Unit: 1. Source: judgement; balancing
of cells and a state of charge that is set to full."""
