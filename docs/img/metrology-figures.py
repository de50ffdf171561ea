"""Draw the figures of docs/metrology.md: python docs/img/metrology-figures.py, from the root."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

import matplotlib as mpl
import numpy as np

from chargewatch.domain.times import DAY_S
from chargewatch.evaluation.city_inputs import known_inputs
from chargewatch.risk.engine import assess
from chargewatch.risk.memory import updated
from chargewatch.risk.results import EngineConfig
from chargewatch.simulators.city import make_city

mpl.use("Agg")
import matplotlib.pyplot as plt

FOLDER = Path(__file__).parent
TO = datetime(2026, 11, 1, 16, tzinfo=UTC)


def estimates(result, true, is_dc) -> None:
    """Draw estimated against true errors with their 95 % intervals."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 4.2), sharey=True)
    for axis, side, title in zip(axes, (False, True), ("AC", "DC"), strict=True):
        mine = is_dc == side
        axis.errorbar(
            100 * true[mine],
            100 * result.relative_error[mine],
            yerr=196 * result.standard_uncertainty[mine],
            fmt=".",
            markersize=3,
            linewidth=0.7,
        )
        axis.axline((0, 0), slope=1, color="0.6", linewidth=0.7)
        axis.set(title=title, xlabel="true relative error, %")
    axes[0].set_ylabel("estimate with its 95 % interval, %")
    figure.tight_layout()
    figure.savefig(FOLDER / "metrology-estimates.png", dpi=110)


def budget(result, is_dc) -> None:
    """Draw the median budget of AC and DC connectors, per cent."""
    figure, axis = plt.subplots(figsize=(8, 3.2))
    for k, (side, label) in enumerate(((False, "AC"), (True, "DC"))):
        median = 100 * np.nanmedian(result.budget[is_dc == side], axis=0)
        axis.barh(np.arange(median.size) + 0.4 * k, median, height=0.38, label=label)
    axis.set_yticks(np.arange(len(result.budget_components)) + 0.2, result.budget_components)
    axis.set_xlabel("median standard uncertainty, %")
    axis.legend()
    figure.tight_layout()
    figure.savefig(FOLDER / "metrology-budget.png", dpi=110)


def step(inputs, result, faults) -> None:
    """Draw the daily estimates of a connector that was tampered with, and when it was."""
    statistics = updated(inputs, config=EngineConfig(), state=None)
    rows = sorted(faults.of_kind("step"))
    seen = (statistics.metered_precision[rows] > 0).sum(axis=1)
    row = rows[int(np.argmax(seen))]
    x, p = statistics.metered[row], statistics.metered_precision[row]
    use = p > 0
    spread = np.sqrt(1.0 / p[use] + 0.002**2)
    first = int(statistics.days[0])
    figure, axis = plt.subplots(figsize=(8, 3.2))
    day = np.arange(x.size) + 0.5
    axis.errorbar(day[use], 100 * x[use], yerr=196 * spread, fmt=".", linewidth=0.7)
    low, high = (at[row] / DAY_S - first for at in (result.drift_low_s, result.drift_high_s))
    axis.axvspan(low, high + 1, color="0.85")
    axis.axvline(result.drift_changed_s[row] / DAY_S - first, color="0.4", linewidth=0.8)
    axis.set(ylabel="daily estimate of z, %", xlabel="day")
    axis.set_title(f"log odds of a change: {result.drift_statistic[row]:.0f}", fontsize=9)
    figure.tight_layout()
    figure.savefig(FOLDER / "metrology-step.png", dpi=110)


def main() -> int:
    """Draw all figures from one seed of the scenario mixed-faults."""
    city = make_city("mixed-faults", seed=1, to=TO)
    known = known_inputs(city)
    result = assess(known.inputs, config=EngineConfig())
    is_dc = known.inputs.fleet.is_dc
    estimates(result, known.relative_error, is_dc)
    budget(result, is_dc)
    step(known.inputs, result, city.faults)
    return 0


if __name__ == "__main__":
    sys.exit(main())
