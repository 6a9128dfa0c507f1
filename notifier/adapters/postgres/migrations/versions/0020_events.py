"""Adds the events, by day."""

from notifier.adapters.postgres.migrations.sql_script import run_sql_script

revision = "0020"
down_revision = "0018"


def upgrade() -> None:
    """Run 0020_events.sql. Processes of the version before may run meanwhile."""
    run_sql_script(__file__)
