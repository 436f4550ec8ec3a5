"""Users: until when a login link lets one choose a new password."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("users", sa.Column("link_until", sa.Float, nullable=False, server_default="0"))
