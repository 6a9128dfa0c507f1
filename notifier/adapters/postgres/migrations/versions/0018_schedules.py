"""Adds the schedules."""

from notifier.adapters.postgres.migrations.sql_script import run_sql_script

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    """Run 0018_schedules.sql. Processes of the version before may run meanwhile."""
    run_sql_script(__file__)
