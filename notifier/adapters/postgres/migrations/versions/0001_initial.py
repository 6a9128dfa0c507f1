"""The first schema: notifications, attempts, failures, workers."""

from notifier.adapters.postgres.migrations.plain import run_sql_beside

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Run 0001_initial.sql."""
    run_sql_beside(__file__)
