"""Creates the first schema: notifications, attempts, failures, workers."""

from notifier.adapters.postgres.migrations.sql_script import run_sql_script

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Run 0001_initial.sql."""
    run_sql_script(__file__)
