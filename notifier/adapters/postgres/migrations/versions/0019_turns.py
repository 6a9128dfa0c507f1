"""Adds the turns that queues use, and rates of tenants."""

from notifier.adapters.postgres.migrations.sql_script import run_sql_script

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    """Run 0019_turns.sql. Processes of the version before may run meanwhile."""
    run_sql_script(__file__)
