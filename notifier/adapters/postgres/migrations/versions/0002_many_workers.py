"""Adds the tables that workers share: provider rates, breakers, pauses."""

from notifier.adapters.postgres.migrations.sql_script import run_sql_script

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Run 0002_many_workers.sql."""
    run_sql_script(__file__)
