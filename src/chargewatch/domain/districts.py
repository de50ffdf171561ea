"""Districts of the city by their administrative code (GB/T 2260), kept as data with its source."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True)
class District:
    """A district: six digits, its name and the name for people who read English."""

    code: str
    name: str
    en: str


@cache
def districts() -> Mapping[str, District]:
    """Return the city's districts by code."""
    text = files("chargewatch.domain").joinpath("districts.json").read_text(encoding="utf-8")
    return {row["code"]: District(**row) for row in json.loads(text)["districts"]}


def district_name(code: str, language: str = "zh") -> str:
    """Return what a district is called; a code that isn't known stands for itself."""
    found = districts().get(code)
    if found is None:
        return code
    return found.en if language == "en" else found.name
