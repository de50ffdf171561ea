"""Auditors, second factors, and users' own tokens for the API."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

ROLES = "'administrator', 'supervisor', 'inspector', 'operator'"


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_constraint(op.f("ck_app_user_role"), "app_user", type_="check")
    op.create_check_constraint(
        op.f("ck_app_user_role"), "app_user", f"role IN ({ROLES}, 'auditor')"
    )
    op.add_column("app_user", sa.Column("totp_secret", sa.Text()))
    op.add_column("app_user", sa.Column("totp_confirmed_at", sa.DateTime(timezone=True)))
    op.add_column("app_user", sa.Column("totp_last_step", sa.BigInteger()))
    op.create_table(
        "api_token",
        sa.Column("token_id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("token_id", name=op.f("pk_api_token")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_api_token_token_hash")),
        sa.ForeignKeyConstraint(
            ["user_id"], ["app_user.user_id"], name=op.f("fk_api_token_user_id_app_user")
        ),
        sa.CheckConstraint("scope IN ('read', 'all')", name=op.f("ck_api_token_scope")),
    )
    op.create_index(op.f("ix_api_token_user_id"), "api_token", ["user_id"])


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_table("api_token")
    for column in ("totp_last_step", "totp_confirmed_at", "totp_secret"):
        op.drop_column("app_user", column)
    # Who may only look stays out rather than getting more rights.
    op.execute("UPDATE app_user SET role = 'inspector', disabled = true WHERE role = 'auditor'")
    op.drop_constraint(op.f("ck_app_user_role"), "app_user", type_="check")
    op.create_check_constraint(op.f("ck_app_user_role"), "app_user", f"role IN ({ROLES})")
