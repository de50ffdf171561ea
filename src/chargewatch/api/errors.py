"""Errors that the API answers with: a status, a code for programs, a message for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from chargewatch.api.answers import JsonAnswer
from chargewatch.errors import ChargewatchError, NotFoundError


class ApiError(ChargewatchError):
    """A request that is answered with a status other than 200."""

    def __init__(
        self, status: int, code: str, message: str, *, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = headers or {}


def not_found(kind: str, name: str) -> ApiError:
    """Return the 404 of a thing that isn't there or may not be seen; both look the same."""
    return ApiError(
        404, "not_found", f"no {kind} {name!r} that you may see: check the name in the list"
    )


@contextmanager
def answered(
    told: Mapping[type[ChargewatchError], tuple[int, str]], *, retry_s: int = 60
) -> Iterator[None]:
    """Turn what a service refuses into an ApiError with its words; what is not there is a 404.

    Args:
        told: status and code by error; the first that fits counts, so narrow ones come first.
        retry_s: when to come again, where the status is 503.
    """
    try:
        yield
    except ChargewatchError as exc:
        kinds: dict[type[ChargewatchError], tuple[int, str]] = {
            NotFoundError: (404, "not_found"),
            **told,
        }
        for kind, (status, code) in kinds.items():
            if isinstance(exc, kind):
                headers = {"Retry-After": str(retry_s)} if status == 503 else None
                raise ApiError(status, code, str(exc), headers=headers) from exc
        raise


def error_document(code: str, message: str) -> dict[str, Any]:
    """Return the body of every error."""
    return {"error": {"code": code, "message": message}}


def error_answer(
    status: int, code: str, message: str, *, headers: dict[str, str] | None = None
) -> JsonAnswer:
    """Return the JSON answer of an error."""
    return JsonAnswer(error_document(code, message), status_code=status, headers=headers)
