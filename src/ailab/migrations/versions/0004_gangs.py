"""Jobs: how many workers, how they train together, and at which ports they meet."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("workers", sa.Integer, nullable=False, server_default="1"))
    op.add_column("jobs", sa.Column("strategy", sa.String, nullable=False, server_default=""))
    op.add_column("jobs", sa.Column("ports", sa.JSON, nullable=False, server_default="[]"))
