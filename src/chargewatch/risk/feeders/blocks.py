"""Which connectors a feeder meter measures, arranged as padded dense blocks of like size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chargewatch.domain.arrays import Bools, Floats, Ints
from chargewatch.domain.times import DAY_S
from chargewatch.risk.priors import EXPIRED_DRIFT_PER_YEAR
from chargewatch.risk.run_inputs import Fleet, References

BLOCK_SIZES = (
    *(1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48, 64),
    *(80, 96, 128, 160, 200, 256, 384, 512, 1024),
)
"""Padded sizes; a feeder with more connectors than the last is not used."""
YEAR_S = 365.25 * DAY_S


@dataclass(frozen=True, kw_only=True)
class Group:
    """Feeders of one padded size q; b feeders."""

    size: int
    meter: Ints  # (b,)
    member: Ints  # (b, q), -1 where padded
    same_side: Bools  # (b, q): meter and connector measure the same current, AC or DC

    @property
    def key(self) -> str:
        """Name of the group in the state."""
        return f"feeders{self.size}"


@dataclass(frozen=True, kw_only=True)
class FeederLayout:
    """All feeders by group, and where connectors and meters are in them."""

    groups: tuple[Group, ...]
    connector_group: Ints  # (n,), -1: under no feeder
    connector_row: Ints
    connector_column: Ints
    meter_group: Ints  # (m,), -1: not a feeder meter that is used
    meter_row: Ints
    meter_u: Floats  # (m,)
    direct_meter: Ints  # (n,), in-series meter on the same side, or -1


def member_rows(references: References) -> tuple[Ints, Ints]:
    """Return meter and connector of every membership, both of shape (k,)."""
    counts = np.diff(references.member_start)
    return np.repeat(np.arange(counts.size), counts), references.members


def meter_uncertainty(references: References, *, as_of_s: float) -> Floats:
    """Return the standard uncertainty of every meter, shape (m,), wider once it has expired."""
    late = np.nan_to_num(np.maximum(as_of_s - references.valid_until_s, 0.0) / YEAR_S)
    return np.asarray(
        np.sqrt(references.standard_uncertainty**2 + EXPIRED_DRIFT_PER_YEAR**2 * late)
    )


def feeder_layout(fleet: Fleet, references: References, *, as_of_s: float) -> FeederLayout:
    """Return the feeders in padded blocks.

    A connector belongs to one block: of several feeder meters above it the one with the fewest
    members counts, and a meter that shares a member with a smaller one is left out. A meter
    without a stated uncertainty is not traceable and left out. An in-series meter on the other
    side of the converter is a feeder with one member.
    """
    n, m = fleet.size, references.size
    meter_u = meter_uncertainty(references, as_of_s=as_of_s)
    meter, connector = member_rows(references)
    usable = np.isfinite(meter_u)
    same_side = references.is_dc[meter] == fleet.is_dc[connector]
    direct = references.in_series[meter] & same_side & usable[meter]
    direct_meter = np.full(n, -1, dtype=np.int64)
    direct_meter[connector[direct]] = meter[direct]

    counts = np.bincount(meter, minlength=m)
    usable &= (counts > 0) & (counts <= BLOCK_SIZES[-1])
    keep = ~(references.in_series[meter] & same_side) & usable[meter]
    meter, connector, same_side = meter[keep], connector[keep], same_side[keep]
    order = np.lexsort((connector, meter, counts[meter]))
    meter, connector, same_side = meter[order], connector[order], same_side[order]
    first = np.zeros(meter.size, dtype=bool)
    first[np.unique(connector, return_index=True)[1]] = True
    shared = np.zeros(m, dtype=bool)
    shared[meter[~first]] = True
    keep = ~shared[meter]
    order = np.lexsort((connector[keep], meter[keep]))
    meter, connector, same_side = (a[keep][order] for a in (meter, connector, same_side))

    connector_group = np.full(n, -1, dtype=np.int64)
    connector_row, connector_column = connector_group.copy(), connector_group.copy()
    meter_group = np.full(m, -1, dtype=np.int64)
    meter_row = meter_group.copy()
    groups: list[Group] = []
    padded = np.asarray(BLOCK_SIZES)[np.searchsorted(BLOCK_SIZES, np.minimum(counts, 1024))]
    for size in np.unique(padded[meter]) if meter.size else ():
        mine = padded[meter] == size
        meters, row = np.unique(meter[mine], return_inverse=True)
        begin = np.searchsorted(row, np.arange(meters.size))
        column = np.arange(row.size) - begin[row]
        member = np.full((meters.size, int(size)), -1, dtype=np.int64)
        member[row, column] = connector[mine]
        side = np.ones(member.shape, dtype=bool)
        side[row, column] = same_side[mine]
        connector_group[connector[mine]] = len(groups)
        connector_row[connector[mine]] = row
        connector_column[connector[mine]] = column
        meter_group[meters] = len(groups)
        meter_row[meters] = np.arange(meters.size)
        groups.append(Group(size=int(size), meter=meters, member=member, same_side=side))
    return FeederLayout(
        groups=tuple(groups),
        connector_group=connector_group,
        connector_row=connector_row,
        connector_column=connector_column,
        meter_group=meter_group,
        meter_row=meter_row,
        meter_u=meter_u,
        direct_meter=direct_meter,
    )


def with_feeders(layout: FeederLayout, wanted: Bools) -> Bools:
    """Return the wanted connectors and all that share a feeder with one, shape (n,)."""
    out = wanted.copy()
    for group in layout.groups:
        known = group.member >= 0
        hit = np.asarray((known & wanted[group.member]).any(axis=1))
        out[group.member[hit[:, None] & known]] = True
    return out


def meters_above(layout: FeederLayout) -> Ints:
    """Return the feeder meter that each connector is measured by, shape (n,), -1 without."""
    out = np.full(layout.connector_group.size, -1, dtype=np.int64)
    for group in layout.groups:
        known = group.member >= 0
        out[group.member[known]] = np.broadcast_to(group.meter[:, None], known.shape)[known]
    return out
