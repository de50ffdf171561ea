"""Records of arrays and values, nested as they may be, as flat names and back, to the last bit."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

from chargewatch.supervision.evidence.form import EvidenceError

Record = TypeVar("Record")

EXACT_INTEGERS = 2**53 - 1
_INTEGER = re.compile(r"-?[0-9]{16,19}")
_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


@dataclass(frozen=True)
class Flat:
    """Values and arrays by their place, names of fields with slashes between."""

    values: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)


_KINDS: dict[Any, Mapping[str, Any]] = {}
"""Of each record its fields and their types: reading these takes time."""


def _kinds(record: Any) -> Mapping[str, Any]:
    if record not in _KINDS:
        hints = get_type_hints(record)
        _KINDS[record] = {one.name: hints[one.name] for one in fields(record)}
    return _KINDS[record]


def flattened(record: Any, place: str, *, into: Flat) -> None:
    """Put a record into flat names that begin with a place."""
    if isinstance(record, np.ndarray):
        into.arrays[place] = record
    elif is_dataclass(record):
        for one in fields(record):
            flattened(getattr(record, one.name), f"{place}/{one.name}", into=into)
    elif isinstance(record, tuple) and any(_is_deep(each) for each in record):
        into.values[place] = len(record)
        for number, each in enumerate(record):
            flattened(each, f"{place}/{number}", into=into)
    else:
        into.values[place] = _plain(record)


def _is_deep(value: Any) -> bool:
    return isinstance(value, np.ndarray) or is_dataclass(value)


def _plain(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return [_plain(each) for each in value]
    if isinstance(value, float):
        number = float(value)
        if math.isfinite(number):
            return number
        return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"
    if isinstance(value, np.generic):
        value = value.item()
    # Canonical JSON has no integers that a double doesn't hold.
    if isinstance(value, int) and abs(value) > EXACT_INTEGERS:
        return str(value)
    return value


class Unflattened:
    """Makes records of flat names again, and checks that each is of its kind."""

    def __init__(self, values: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
        self._values = values
        self._arrays = arrays

    def record(self, kind: type[Record], place: str) -> Record:
        """Return a record of a kind.

        Raises: EvidenceError that names what is missing or of another kind.
        """
        told = {name: self._of(each, f"{place}/{name}") for name, each in _kinds(kind).items()}
        return kind(**told)

    def _of(self, kind: Any, place: str) -> Any:
        origin, inner = get_origin(kind), get_args(kind)
        if origin in (Union, UnionType):
            if place in self._values and self._values[place] is None:
                return None
            return self._of(next(each for each in inner if each is not NoneType), place)
        if origin is np.ndarray:
            return self._array(kind, place)
        if isinstance(kind, type) and is_dataclass(kind):
            return self.record(kind, place)
        if origin is tuple and inner[-1] is Ellipsis and self._is_deep_kind(inner[0]):
            if self._values.get(place) == []:
                return ()
            count = self._value(int, place)
            if not 0 <= count <= len(self._values) + len(self._arrays):
                raise EvidenceError(f"the file can't have {count} of {place!r}")
            return tuple(self._of(inner[0], f"{place}/{number}") for number in range(count))
        if origin is tuple or (isinstance(origin, type) and issubclass(origin, Sequence)):
            listed = self._value(list, place)
            each = next(kind for kind in inner if kind is not Ellipsis)
            return tuple(self._checked(each, value, place) for value in listed)
        return self._checked(kind, self._value(object, place), place)

    @staticmethod
    def _is_deep_kind(kind: Any) -> bool:
        return get_origin(kind) is np.ndarray or (isinstance(kind, type) and is_dataclass(kind))

    def _array(self, kind: Any, place: str) -> NDArray[Any]:
        if place not in self._arrays:
            raise EvidenceError(f"the file lacks the array {place!r}")
        values, wanted = self._arrays[place], get_args(get_args(kind)[1])[0]
        # Wider or narrower numbers of the same sort are as the run had them.
        if wanted in (np.float64, np.int64, np.bool_):
            sort = {np.float64: "f", np.int64: "i", np.bool_: "b"}[wanted]
            if values.dtype.kind != sort:
                raise EvidenceError(
                    f"the array {place!r} holds {values.dtype}, not {wanted.__name__}"
                )
        return values

    def _value(self, kind: type, place: str) -> Any:
        if place not in self._values:
            raise EvidenceError(f"the file lacks the value {place!r}")
        value = self._values[place]
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise EvidenceError(f"the value {place!r} is no {kind.__name__}")
        return value

    @staticmethod
    def _checked(kind: Any, value: Any, place: str) -> Any:
        if kind is float and isinstance(value, str) and value in _NOT_FINITE:
            return _NOT_FINITE[value]
        # Canonical JSON writes 1.0 as 1.
        if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
        if kind is int and isinstance(value, str) and _INTEGER.fullmatch(value):
            return int(value)
        if kind in (int, bool, str) and type(value) is kind:
            return value
        raise EvidenceError(f"the value {place!r} is no {getattr(kind, '__name__', kind)}")
