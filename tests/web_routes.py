"""Every route of the application with its parameters, so that no test forgets a new one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote, urlencode

from fastapi import FastAPI
from fastapi.dependencies.utils import get_flat_params
from fastapi.routing import APIRoute, iter_route_contexts


@dataclass(frozen=True)
class Address:
    """One method at one path."""

    method: str
    path: str
    in_path: tuple[str, ...]
    in_query: tuple[str, ...]

    def url(self, in_path: Mapping[str, str], in_query: Mapping[str, str]) -> str:
        """Return an address with values, every character of them encoded."""
        path = self.path
        for name in self.in_path:
            path = path.replace(f"{{{name}}}", quote(in_path[name], safe=""))
        return path + ("?" + urlencode(in_query) if in_query else "")


def addresses(app: FastAPI) -> list[Address]:
    """Return every method at every path that the application answers at, mounts left out."""
    found = []
    for context in iter_route_contexts(app.routes):
        if not context.methods or not context.path:
            continue
        params = get_flat_params(context.dependant) if isinstance(context.route, APIRoute) else []
        by_place: dict[str, list[str]] = {"path": [], "query": []}
        for param in params:
            place = param.field_info.in_.value
            if place in by_place:
                by_place[place].append(param.alias)
        for method in sorted(context.methods - {"HEAD"}):
            found.append(
                Address(method, context.path, tuple(by_place["path"]), tuple(by_place["query"]))
            )
    return found


def variations(
    names: Sequence[str], values: Mapping[str, Sequence[str]]
) -> Iterator[dict[str, str]]:
    """Yield nothing given, then each value of each name alone."""
    yield {}
    for name in names:
        for value in values[name]:
            yield {name: value}
