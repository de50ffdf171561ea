"""Pydantic models of the records that `domain` declares; the API's models are made so too."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, create_model

M = TypeVar("M", bound=BaseModel)


def with_fields(fields: Mapping[str, Any]) -> Callable[[type[M]], type[M]]:
    """Return a decorator that adds fields to a model, behind its own.

    Where: fields: what `pydantic.create_model` takes: type and default, `...` for none.
    """

    def add(model: type[M]) -> type[M]:
        return create_model(
            model.__name__,
            __base__=model,
            __doc__=model.__doc__,
            __module__=model.__module__,
            **dict(fields),
        )

    return add
