"""Log-in by an identity provider."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column("app_user", sa.Column("oidc_subject", sa.Text()))
    op.create_unique_constraint(op.f("uq_app_user_oidc_subject"), "app_user", ["oidc_subject"])
    op.add_column(
        "login_session",
        sa.Column("strong", sa.Boolean(), server_default=sa.false(), nullable=False),
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_column("login_session", "strong")
    op.drop_constraint(op.f("uq_app_user_oidc_subject"), "app_user", type_="unique")
    op.drop_column("app_user", "oidc_subject")
