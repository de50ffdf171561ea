"""What the API takes and answers about users, their tokens and the audit trail."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from chargewatch.supervision.permissions import Role
from chargewatch.supervision.tokens import MOST_DAYS


class NewPassword(BaseModel):
    """A change of one's own password."""

    old_password: str = Field(max_length=1000)
    new_password: str = Field(max_length=1000, description="at least 10 characters")


class SecondFactorCode(BaseModel):
    """A code of an authenticator app."""

    code: str = Field(max_length=20)


class SecondFactorSecret(BaseModel):
    """A fresh secret: put it into an authenticator app, then confirm by a code of it."""

    secret: str = Field(description="base32, for typing in")
    address: str = Field(description="otpauth://..., for a QR code")


class NewApiToken(BaseModel):
    """A token of one's own for programs."""

    label: str = Field(max_length=100, description="what it is for")
    scope: Literal["read", "all"] = Field(
        default="read", description="read: changes nothing; all: whatever the user may"
    )
    days: int = Field(default=90, ge=1, le=MOST_DAYS, description="valid for so many days")


class IssuedToken(BaseModel):
    """A new token, shown only now."""

    token_id: int
    token: str


class ApiTokenRow(BaseModel):
    """A token without what opens anything."""

    token_id: int
    label: str
    scope: Literal["read", "all"]
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None


class ApiTokens(BaseModel):
    """One's own tokens, the newest first."""

    tokens: list[ApiTokenRow]


class NewUser(BaseModel):
    """A user to make; the password is generated."""

    username: str = Field(max_length=64)
    role: Role
    operator_id: str | None = Field(
        default=None, max_length=64, description="of an operator's user"
    )


class MadeUser(BaseModel):
    """A user that was made or given a new password, which is shown only now."""

    username: str
    password: str


class UserRow(BaseModel):
    """A user."""

    user_id: int
    username: str
    role: Role
    operator_id: str | None
    created_at: datetime
    disabled: bool
    second_factor: bool


class Users(BaseModel):
    """All users by name."""

    users: list[UserRow]


class AuditEntry(BaseModel):
    """One change or log-in; the fields of its canonical content, and its number."""

    entry: int
    at: datetime
    actor: str
    role: str | None
    action: str
    subject: str
    why: str | None
    detail: dict[str, Any] | None


class AuditEntries(BaseModel):
    """Entries of the audit trail, the newest first; `before` of the next page is `next_before`."""

    entries: list[AuditEntry]
    next_before: int | None
