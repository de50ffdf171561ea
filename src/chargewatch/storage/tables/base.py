"""What all tables share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import REAL, Column, DateTime, Double, Integer, MetaData, Numeric, Text
from sqlalchemy.dialects.postgresql import JSONB

from chargewatch.domain import columns
from chargewatch.domain.columns import Form

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}

metadata = MetaData(naming_convention=NAMING)
Timestamp = DateTime(timezone=True)

_TYPES: dict[Form, Any] = {
    Form.TEXT: Text,
    Form.TIME: Timestamp,
    Form.REAL: Double,
    Form.SHORT_REAL: REAL,
    Form.DECIMAL: Numeric,
    Form.COUNT: Integer,
    Form.DOCUMENT: JSONB,
}


def record_columns(declared: Sequence[columns.Column]) -> list[Column[Any]]:
    """Return the columns of a table that holds a record of `domain`."""
    return [
        Column(
            column.name,
            _TYPES[column.kind.form],
            nullable=column.optional,
            server_default=column.default,
        )
        for column in declared
    ]
