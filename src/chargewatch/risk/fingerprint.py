"""Fingerprints of what the registry says of a connector, as its statistics depend on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargewatch.domain.arrays import Ints
from chargewatch.risk.feeders.blocks import FeederLayout, feeder_layout
from chargewatch.risk.run_inputs import RunInputs

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


def mixed(columns: Sequence[NDArray[Any]]) -> NDArray[np.uint64]:
    """Return one number a row of some columns: other values give another, but for chance.

    Splitmix64's finisher after each column. Source: Steele, Lea, Flood, OOPSLA 2014.
    """
    out = np.zeros(columns[0].shape, dtype=np.uint64)
    for column in columns:
        # All that is no number is one NaN, and there is one zero.
        values = column.astype(np.float64) + 0.0 if column.dtype.kind in "fb" else column
        bits = np.ascontiguousarray(values, dtype=values.dtype).view(np.uint64)
        bits = np.where(np.isnan(values), np.uint64(1), bits) if values.dtype.kind == "f" else bits
        out = (out ^ bits) * _MULTIPLIER
        out = (out ^ (out >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        out = (out ^ (out >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        out ^= out >> np.uint64(31)
    return out


def _meters(inputs: RunInputs) -> NDArray[np.uint64]:
    """Return what a connector's statistics depend on of its meter, shape (m,)."""
    references = inputs.references
    return mixed(
        [references.number, references.in_series, references.is_dc, references.resolution_wh]
    )


def _with_feeders(
    inputs: RunInputs, layout: FeederLayout, own: NDArray[np.uint64]
) -> NDArray[np.uint64]:
    """Return the fingerprints with those of the meter and of all other members of the feeder."""
    meters, out = _meters(inputs), own.copy()
    for group in layout.groups:
        known = group.member >= 0
        member = np.where(known, group.member, 0)
        whole = meters[group.meter]
        for column in range(group.size):
            padded = np.where(known[:, column], own[member[:, column]], np.uint64(0))
            whole = mixed([whole, padded, group.same_side[:, column]])
        together = np.broadcast_to(whole[:, None], known.shape)[known]
        out[group.member[known]] = mixed([own[group.member[known]], together])
    return out


def fingerprints(inputs: RunInputs) -> NDArray[np.uint64]:
    """Return a number for each connector that changes with what its statistics are built with.

    Its own facts, its meters, and who else is under its feeder; shape (n,).
    """
    fleet, references = inputs.fleet, inputs.references
    layout = feeder_layout(fleet, references, as_of_s=inputs.as_of_s)
    direct: Ints = layout.direct_meter
    series = np.zeros(fleet.size, dtype=np.uint64)
    if references.size:
        series = np.where(direct >= 0, _meters(inputs)[np.maximum(direct, 0)], series)
    own = mixed(
        [
            fleet.number,
            fleet.is_dc,
            fleet.cable_loss_compensated,
            fleet.rated_power_w,
            fleet.resolution_wh,
            series,
        ]
    )
    return _with_feeders(inputs, layout, own)
