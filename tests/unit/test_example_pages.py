"""The figures on the pages of docs/examples are those of their saved runs."""

import importlib.util
import json
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
EXAMPLES = CHECKOUT / "docs" / "examples"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location(
        "example_pages", CHECKOUT / "scripts" / "example_pages.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["evening", "nights"])
def test_a_page_quotes_what_its_run_gave(script, name):
    file = script.PAGES[name][0]
    found = (EXAMPLES / f"{file}.md").read_text(encoding="utf-8")
    assert found == script.page(name), f"run scripts/example_pages.py {name}"
    assert (CHECKOUT / "docs" / "img" / f"{file}.png").stat().st_size > 10_000


def test_the_pile_that_cheats_in_the_evening_was_found():
    found = json.loads((EXAMPLES / "evening-cheat.json").read_text(encoding="utf-8"))
    assert found["verdict"] == "nonconforming"
    assert (found["from_hour"], found["to_hour"]) == (18, 23)
    for part in ("", "_inside", "_otherwise"):
        truth = found["true_error" if not part else f"true{part}"]
        assert abs(found[f"error{part}"] - truth) < 3 * found[f"u{part}"]


def test_the_last_of_the_nights_is_the_full_run():
    found = json.loads((EXAMPLES / "month-of-nights.json").read_text(encoding="utf-8"))
    assert found["verdicts_changed"] == []
    assert found["largest_difference_u"] < 0.05
    assert len(found["by_night"]) == found["nights"] == 30
    assert found["by_night"][-1]["largest_u"] < 0.05
