#!/usr/bin/env python3
"""Make the numbers and plots of docs/examples anew: scripts/example_pages.py evening|nights.

Each run writes docs/examples/NAME.json, its plot, and the figures on its page, which a test
compares with the JSON. `nights` starts a database server of its own where none is set.
"""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[1]
FOLDER = CHECKOUT / "docs" / "examples"
PLOTS = CHECKOUT / "docs" / "img"
BEGIN, END = "<!-- figures: written by scripts/example_pages.py -->", "<!-- end of figures -->"
TO = datetime.fromisoformat("2026-03-31T00:00:00+08:00")
SEED = 7
FROM_HOUR, TO_HOUR = 18.0, 23.0


def evening_numbers() -> dict[str, Any]:
    """Return what a run says of the pile of scenario `cheats` that over-reads in the evening."""
    import numpy as np

    from chargewatch.domain.reason import in_english
    from chargewatch.evaluation.city_inputs import known_inputs
    from chargewatch.risk.engine import assess
    from chargewatch.risk.memory import closed_and_open
    from chargewatch.risk.results import EngineConfig
    from chargewatch.risk.situations import BINS, FIRST, HOURS, INFORMATION, SCORE
    from chargewatch.simulators.city import make_city
    from chargewatch.simulators.truth import situation_row
    from chargewatch.simulators.wire_form import OFFSET_S

    city = make_city("cheats", seed=SEED, to=TO)
    target = next(
        i
        for i, fault in city.faults.of_kind("cheat_hours").items()
        if (fault["from_hour"], fault["to_hour"]) == (FROM_HOUR, TO_HOUR)
        and fault["magnitude_mpe"] > 0
    )
    known, config = known_inputs(city), EngineConfig(utc_offset_s=OFFSET_S)
    result = assess(known.inputs, config=config)
    (found,) = (one for one in result.situations if one.connector == target)
    statistics = closed_and_open(known.inputs, config=config)[1]
    layout = statistics.layout
    group, row = int(layout.connector_group[target]), int(layout.connector_row[target])
    column = layout.groups[group].member[row].tolist().index(target)
    hours = slice(FIRST[HOURS], FIRST[HOURS] + BINS[HOURS])
    sums = statistics.feeders[group].situations[row, column, hours].astype(np.float64)
    information = np.maximum(sums[:, INFORMATION], 1e-12)
    differs = sums[:, SCORE] / information
    truth = situation_row(known.stream, target)["situation"]

    def percent(value: float) -> float:
        return round(100 * float(value), 3)

    return {
        "command": "python scripts/example_pages.py evening",
        "scenario": "cheats",
        "seed": SEED,
        "connector": city.layout.connectors.name[target],
        "mpe": percent(known.inputs.fleet.mpe[target]),
        "true_error": percent(known.relative_error[target]),
        "true_inside": percent(truth["error_inside"]),
        "true_otherwise": percent(truth["error_outside"]),
        "error": percent(result.relative_error[target]),
        "u": percent(result.standard_uncertainty[target]),
        "error_inside": percent(found.error),
        "u_inside": percent(found.u),
        "error_otherwise": percent(found.error_otherwise),
        "u_otherwise": percent(found.u_otherwise),
        "from_hour": found.low,
        "to_hour": found.high,
        "energy_share": percent(found.energy_share),
        "verdict": str(result.verdict[target]),
        "reason": in_english(result.reason[target]),
        "by_hour": [percent(value) for value in differs],
        "u_by_hour": [percent(value) for value in information**-0.5],
    }


def nights_numbers() -> dict[str, Any]:
    """Return what `chargewatch bench nights --json` says."""
    done = subprocess.run(
        [sys.executable, "-m", "chargewatch", "bench", "nights", "--json"],
        stdout=subprocess.PIPE,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def evening_figures(numbers: dict[str, Any]) -> list[str]:
    """Return the lines of the page that quote the run of the evening."""
    n = numbers
    when = f"from {n['from_hour']:.0f}:00 to {n['to_hour']:.0f}:00"
    return [
        f"Connector `{n['connector']}` (MPE {n['mpe']:.0f} %), seed {n['seed']}. {n['verdict']}:",
        "",
        f"> {n['reason']}",
        "",
        "| | true | estimate | u |",
        "|---|---|---|---|",
        f"| over all energy | {n['true_error']:+.2f} % | {n['error']:+.2f} % | {n['u']:.2f} % |",
        f"| {when}, {n['energy_share']:.0f} % of its energy | {n['true_inside']:+.2f} % "
        f"| {n['error_inside']:+.2f} % | {n['u_inside']:.2f} % |",
        f"| otherwise | {n['true_otherwise']:+.2f} % | {n['error_otherwise']:+.2f} % "
        f"| {n['u_otherwise']:.2f} % |",
    ]


def nights_figures(numbers: dict[str, Any]) -> list[str]:
    """Return the lines of the page that quote the month of nights."""
    n = numbers
    lines = [
        f"{n['nights']} nights of {n['connectors']} connectors (`{n['scenario']}`, seed "
        f"{n['seed']}), {n['full_nights']} of them computed in full. On the last night, against "
        f"one full run on the same data: {len(n['verdicts_changed'])} other verdicts; errors "
        f"differ by at most {n['largest_difference_u']:.4f} u, uncertainties by at most "
        f"{100 * n['largest_uncertainty_ratio']:.4f} %.",
        "",
        "| night | estimates | median away | 90 % within |",
        "|---|---|---|---|",
    ]
    for night in n["by_night"]:
        if night["night"] in {1, 5, 10, 15, 20, 25, 29, n["nights"]}:
            lines.append(
                f"| {night['night']} | {night['estimates']} | {night['median_u']:.2f} u "
                f"| {night['p90_u']:.2f} u |"
            )
    return lines


def plot_evening(numbers: dict[str, Any], axis: Any) -> None:
    """Draw the pile's hours."""
    hours = [hour + 0.5 for hour in range(24)]
    axis.axvspan(numbers["from_hour"], numbers["to_hour"], color="0.92")
    axis.axhline(0, color="0.6", linewidth=0.7)
    axis.errorbar(
        hours,
        numbers["by_hour"],
        yerr=[2 * u for u in numbers["u_by_hour"]],
        fmt="o",
        markersize=3,
        linewidth=0.8,
    )
    axis.set(
        xlabel="hour of the local day (shaded: the situation that is told)",
        ylabel="beside its mean gain, %",
        xlim=(0, 24),
        xticks=range(0, 25, 3),
        title=f"{numbers['connector']}: error by hour beside one error for all hours, k = 2",
    )


def plot_nights(numbers: dict[str, Any], axis: Any) -> None:
    """Draw how far each night was from the full run at the end."""
    night = [row["night"] for row in numbers["by_night"]]
    for name, label in (("median_u", "median"), ("p90_u", "90 % of connectors within")):
        axis.plot(night, [row[name] for row in numbers["by_night"]], marker=".", label=label)
    axis.set(
        xlabel="night",
        ylabel="|error of the night - full run|, u of the night",
        title="A month of nights against the full run at its end",
    )
    axis.set_ylim(bottom=0)
    axis.legend()


PAGES = {
    "evening": ("evening-cheat", evening_numbers, evening_figures, plot_evening),
    "nights": ("month-of-nights", nights_numbers, nights_figures, plot_nights),
}


def page(name: str) -> str:
    """Return a page with the figures that its saved numbers hold."""
    file, _, figures, _ = PAGES[name]
    numbers = json.loads((FOLDER / f"{file}.json").read_text(encoding="utf-8"))
    head, _, rest = (FOLDER / f"{file}.md").read_text(encoding="utf-8").partition(BEGIN)
    return "\n".join([head + BEGIN, *figures(numbers), END + rest.partition(END)[2]])


def make(name: str) -> None:
    """Run an example and write its numbers, plot and page."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    file, numbers_of, _, plot = PAGES[name]
    numbers = numbers_of()
    text = json.dumps(numbers, indent=1, ensure_ascii=False) + "\n"
    (FOLDER / f"{file}.json").write_text(text, encoding="utf-8")
    figure, axis = plt.subplots(figsize=(7, 3.6))
    plot(numbers, axis)
    figure.tight_layout()
    figure.savefig(PLOTS / f"{file}.png", dpi=110)
    (FOLDER / f"{file}.md").write_text(page(name), encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in PAGES:
        sys.exit(f"give one of: {', '.join(PAGES)}")
    make(sys.argv[1])
