"""The figures of an evaluation as lines of text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

WORDS: Mapping[str, str] = {
    "rmse": "RMSE of relative_error",
    "rmse_over_bound": "RMSE over its Cramer-Rao bound",
    "coverage": "coverage of the 95 % interval",
    "false_flags": "false flags among red",
    "recall_1_5_mpe": "recall at |eps| >= 1.5 MPE",
    "recall_2_mpe": "recall at |eps| >= 2 MPE",
    "days_to_flag_median": "days to flag a step of 2 MPE, median",
    "false_drift_alarms_per_1000_month": "false drift alarms per 1,000 piles and month",
    "brier_score": "Brier score",
    "ideal_brier_score": "Brier score if the probabilities were right",
}


def lines(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines that show an evaluation's document; intervals of 95 % in brackets."""
    targets, errors = document["targets"], document["errors"]
    for name, words in WORDS.items():
        if name in errors:
            target = f"   [target {targets[name]}]" if name in targets else ""
            yield f"{words}: {_text(errors[name])}{target}"
    yield from _reliability(errors.get("reliability", ()))
    yield from _kinds(document.get("by_kind", ()))
    yield from _given(document.get("by_kind", ()), targets)
    for code, row in document["situations"].items():
        yield _situation(code, row)
    for code, row in document.get("signals", {}).get("by_code", {}).items():
        names = ", ".join([*row["false"][:3], *row["missed"][:3]])
        yield (
            f"signal {code}: precision {_text(row['precision'])}, recall {_text(row['recall'])}"
            + (f"; false or missed: {names}" if names else "")
        )


def shift_lines(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines that show what wrong priors cost."""
    yield f"{document['scenario']}, {document['seeds']} seeds from {document['first_seed']}"
    yield (
        f"{'shift':<20}{'RMSE %':>8}{'over u':>8}{'cover %':>9}{'bias AC %':>11}{'bias DC %':>11}"
        f"{'false red':>11}{'found':>9}  prior and truth"
    )
    for row in document["prior_shifts"]:
        told = "" if row["prior"] is None else f"{row['prior']}: {row['truth']}"
        flags, found = f"{row['false_red']}/{row['red']}", f"{row['found']}/{row['offenders']}"
        yield (
            f"{row['shift']:<20}{100 * row['rmse']:>8.3f}{row['rmse_over_u']:>8.2f}"
            f"{100 * row['coverage']:>9.1f}{100 * row['bias_ac']:>11.3f}"
            f"{100 * row['bias_dc']:>11.3f}{flags:>11}{found:>9}  {told}".rstrip()
        )


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        shown = _text(value.get("value"))
        low, high = value.get("low"), value.get("high")
        if low is not None and high is not None and not math.isnan(low):
            shown += f" ({low:.4g} to {high:.4g})"
        return shown + (f" of {value['of']}" if "of" in value else "")
    return "-" if value is None or math.isnan(value) else f"{value:.4g}"


def _reliability(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for row in rows:
        yield (
            f"  p {row['from']:.2f} to {row['to']:.2f}: said {row['mean_p']:.4f}, "
            f"came {row['observed']:.4f} "
            f"({row['observed_low']:.4f} to {row['observed_high']:.4f}), "
            f"{row['came']} of {row['connectors']} connectors"
        )


def _situation(code: str, row: Mapping[str, Any]) -> str:
    told = ""
    if "named" in row:
        told = f"; situation told of {row['named']}, right of {row['rightly_named']}"
    return (
        f"wrong only by {code}: {row['found']} of {row['offenders']} at >= 1.5 MPE over all "
        f"energy are red, {row['wrongly_conforming']} beyond the MPE called conforming "
        f"({row['connectors']} connectors, {row['red']} red){told}"
    )


def _kinds(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield a table by current and kind of evidence."""
    if not rows:
        return
    cells = [
        (
            f"{row['current']} {row['kind']}".strip(),
            str(row["connectors"]),
            *(_number(100 * row[name], 3) for name in ("rmse", "bias", "stated_u")),
            _number(row["mean_squared_z"], 2),
            _percent(row["coverage"]),
            _number(row["rmse_over_bound"], 2),
            _number(row["rmse_over_given"].get("all", {"value": math.nan})["value"], 2),
            _counts(row["false_flags"]),
            _counts(row["wrongly_conforming"]),
            _counts(row["recall_1_5_mpe"]),
        )
        for row in rows
    ]
    head = (
        "evidence",
        "n",
        "RMSE %",
        "bias %",
        "u %",
        "z2",
        "covered %",
        "/bound",
        "/oracle",
        "false of red",
        "wrong of conforming",
        "red of >= 1.5 MPE",
    )
    widths = [max(len(line[k]) for line in (head, *cells)) for k in range(len(head))]
    yield "by kind of evidence (u: root mean square of what is stated; z2: mean of (error / u)^2):"
    for line in (head, *cells):
        first = line[0].ljust(widths[0])
        rest = [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        yield "  " + "  ".join([first, *rest])


def _given(rows: Sequence[Mapping[str, Any]], targets: Mapping[str, str]) -> Iterator[str]:
    """Yield how much better the engine would be with truths in place of its judgements."""
    for row in rows:
        if row["kind"] != "all":
            continue
        for name, ratio in row["rmse_over_given"].items():
            if name == "all":
                target = f"   [target {targets['rmse_over_oracle']}]"
                yield f"RMSE over the oracle's, {row['current']}: {_text(ratio)}{target}"
            else:
                yield f"  over that with true {name}: {_text(ratio)}"


def _number(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def _percent(share: Mapping[str, Any]) -> str:
    if not share["of"]:
        return "-"
    value, low, high = (100 * share[name] for name in ("value", "low", "high"))
    return f"{value:.1f} ({low:.1f} to {high:.1f})"


def _counts(share: Mapping[str, Any]) -> str:
    return f"{share['part']} of {share['of']}" if share["of"] else "-"
