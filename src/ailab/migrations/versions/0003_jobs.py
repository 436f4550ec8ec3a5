"""Jobs, the leases that tasks hold, what users have used, and schedules."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("owner", sa.String, nullable=False),
        sa.Column("state", sa.String, nullable=False, index=True),
        sa.Column("request", sa.JSON, nullable=False),
        sa.Column("snapshot", sa.JSON, nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("cpus", sa.Integer, nullable=False),
        sa.Column("memory_bytes", sa.Integer, nullable=False),
        sa.Column("gpus", sa.Integer, nullable=False),
        sa.Column("gpu_fraction", sa.Float, nullable=False),
        sa.Column("waits", sa.Boolean, nullable=False),
        sa.Column("submitted_at", sa.Float, nullable=False),
        sa.Column("not_before", sa.Float, nullable=False),
        sa.Column("started_at", sa.Float),
        sa.Column("ended_at", sa.Float),
        sa.Column("exit_status", sa.Integer),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("note", sa.String, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("asked", sa.String, nullable=False),
        sa.Column("repeats", sa.Integer),
        sa.Column("array", sa.Integer),
        sa.Column("part", sa.Integer),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "leases",
        sa.Column("task", sa.String, primary_key=True),
        sa.Column("owner", sa.String, nullable=False),
        sa.Column("cpus", sa.Integer, nullable=False),
        sa.Column("memory_bytes", sa.Integer, nullable=False),
        sa.Column("gpus", sa.JSON, nullable=False),
        sa.Column("since", sa.Float, nullable=False),
    )
    op.create_table(
        "usage",
        sa.Column("owner", sa.String, primary_key=True),
        sa.Column("used", sa.Float, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
    )
    op.create_table(
        "schedules",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("owner", sa.String, nullable=False),
        sa.Column("request", sa.JSON, nullable=False),
        sa.Column("every", sa.Float, nullable=False),
        sa.Column("due", sa.Float, nullable=False),
        sa.Column("last_job", sa.Integer),
        sqlite_autoincrement=True,
    )
