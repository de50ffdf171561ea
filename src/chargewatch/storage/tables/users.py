"""Who may log in, and with which rights."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Identity,
    Index,
    LargeBinary,
    Table,
    Text,
    false,
    func,
)

from chargewatch.storage.tables.base import Timestamp, metadata

app_user = Table(
    "app_user",
    metadata,
    Column("user_id", BigInteger, Identity(), primary_key=True),
    Column("username", Text, nullable=False, unique=True),
    Column("password_hash", Text, nullable=False),
    Column("role", Text, nullable=False),
    # Set for users of an operator: they see its piles only.
    Column("operator_id", Text),
    Column("created_at", Timestamp, nullable=False, server_default=func.now()),
    Column("disabled", Boolean, nullable=False, server_default=false()),
    # The second factor: asked for once it is confirmed; a code counts once.
    Column("totp_secret", Text),
    Column("totp_confirmed_at", Timestamp),
    Column("totp_last_step", BigInteger),
    # Who it is at the identity provider, from the first log-in by it on.
    Column("oidc_subject", Text, unique=True),
    CheckConstraint(
        "role IN ('administrator', 'supervisor', 'inspector', 'operator', 'auditor')", name="role"
    ),
)

# Tokens are kept as SHA-256 only: who reads the table can't log in with it.
login_session = Table(
    "login_session",
    metadata,
    Column("token_hash", LargeBinary, primary_key=True),
    Column("user_id", BigInteger, ForeignKey("app_user.user_id"), nullable=False),
    Column("created_at", Timestamp, nullable=False, server_default=func.now()),
    Column("expires_at", Timestamp, nullable=False),
    # Whether the identity provider asked for more than a password.
    Column("strong", Boolean, nullable=False, server_default=false()),
    Index(None, "user_id"),
)

api_token = Table(
    "api_token",
    metadata,
    Column("token_id", BigInteger, Identity(), primary_key=True),
    Column("token_hash", LargeBinary, nullable=False, unique=True),
    Column("user_id", BigInteger, ForeignKey("app_user.user_id"), nullable=False),
    Column("label", Text, nullable=False),
    Column("scope", Text, nullable=False),
    Column("created_at", Timestamp, nullable=False, server_default=func.now()),
    Column("expires_at", Timestamp, nullable=False),
    Column("revoked_at", Timestamp),
    CheckConstraint("scope IN ('read', 'all')", name="scope"),
    Index(None, "user_id"),
)

operator_token = Table(
    "operator_token",
    metadata,
    Column("token_hash", LargeBinary, primary_key=True),
    Column("operator_id", Text, nullable=False),
    Column("label", Text, nullable=False),
    Column("created_at", Timestamp, nullable=False, server_default=func.now()),
    Column("revoked_at", Timestamp),
    Index(None, "operator_id"),
)
