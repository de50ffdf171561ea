"""Evaluation against a truth.json in the contract's form, without any extension."""

import math

import orjson
import pytest

from chargewatch.errors import InputFileError
from chargewatch.evaluation.compare import evaluation, read_truth

TRUTH = {
    "version": 1,
    "from": "2026-03-01T00:00:00+08:00",
    "to": "2026-03-31T00:00:00+08:00",
    "connectors": [
        {"connector": "S1-1", "relative_error": 0.05, "changes": [], "signals": []},
        {"connector": "S1-2", "relative_error": 0.0, "changes": [], "signals": ["silence"]},
        {"connector": "S2-1", "relative_error": 0.0, "changes": [], "signals": ["fee_mismatch"]},
        {"connector": "S2-2", "relative_error": 0.0, "changes": [], "signals": []},
    ],
    "messages": {"published": 1, "distinct_readings": 1},
}


def assessment(connector, error, tier, p):
    return {
        "connector": connector,
        "station_id": connector[:2],
        "relative_error": error,
        "standard_uncertainty": None if error is None else 0.002,
        "mpe": 0.02,
        "p_nonconforming": p,
        "tier": tier,
    }


ROWS = [
    assessment("S1-1", 0.051, "red", 1.0),
    assessment("S1-2", None, "grey", None),
    assessment("S2-1", 0.001, "orange", 0.0),
]


def test_figures_of_a_plain_truth():
    signals = [
        {"code": "silence", "connector": None, "station_id": "S1"},
        {"code": "conflict", "connector": "S2-1", "station_id": "S2"},
    ]
    document = evaluation(TRUTH, ROWS, signals)
    errors = document["errors"]
    assert document["not_assessed"] == ["S2-2"]
    assert (errors["connectors"], errors["identified"], errors["red"]) == (3, 2, 1)
    assert errors["recall_2_mpe"]["value"] == 1.0
    assert errors["rmse"] == pytest.approx(0.001)
    assert math.isnan(errors["rmse_over_bound"])
    row = document["by_kind"][0]
    assert (row["current"], row["kind"], row["connectors"], row["red"]) == ("", "all", 3, 1)
    by_code = document["signals"]["by_code"]
    assert by_code["silence"]["precision"]["value"] == 1.0
    assert by_code["silence"]["recall"]["value"] == 1.0
    assert by_code["conflict"]["precision"]["value"] == 0.0
    assert by_code["fee_mismatch"]["missed"] == ["S2-1"]


def test_a_truth_that_is_none_is_refused(tmp_path):
    path = tmp_path / "truth.json"
    with pytest.raises(InputFileError, match="can't be read"):
        read_truth(path)
    path.write_bytes(b"{")
    with pytest.raises(InputFileError, match="not JSON"):
        read_truth(path)
    path.write_bytes(orjson.dumps({"version": 2, "connectors": []}))
    with pytest.raises(InputFileError, match="version 1"):
        read_truth(path)


def test_piles_that_are_wrong_only_in_a_situation_are_counted_by_situation():
    def known(connector, error, code, inside):
        row = {"connector": connector, "relative_error": error, "changes": [], "signals": []}
        return row | ({"situation": {"code": code, "error_inside": inside}} if code else {})

    truth = TRUTH | {
        "connectors": [
            known("S1-1", 0.04, "hours", 0.12),
            known("S1-2", -0.035, "hours", -0.12),
            known("S2-1", 0.025, "heat", 0.06),
            known("S2-2", 0.004, "heat", 0.05),
            known("S3-1", 0.001, None, None),
        ]
    }
    rows = [
        assessment("S1-1", 0.04, "red", 1.0) | {"verdict": "nonconforming"},
        assessment("S1-2", -0.01, "green", 0.0) | {"verdict": "conforming"},
        assessment("S2-1", 0.01, "yellow", 0.3) | {"verdict": "undecided"},
        assessment("S2-2", 0.03, "red", 1.0) | {"verdict": "nonconforming"},
        assessment("S3-1", 0.03, "red", 1.0) | {"verdict": "nonconforming"},
    ]
    document = evaluation(truth, rows, [])
    assert document["situations"] == {
        "heat": {
            "connectors": 2,
            "red": 1,
            "offenders": 0,
            "found": 0,
            "wrongly_conforming": 0,
        },
        "hours": {
            "connectors": 2,
            "red": 1,
            "offenders": 2,
            "found": 1,
            "wrongly_conforming": 1,
        },
    }
    # S2-2 is beyond its MPE in the heat, S3-1 nowhere.
    assert document["errors"]["false_flags"]["value"] == pytest.approx(1 / 3)
