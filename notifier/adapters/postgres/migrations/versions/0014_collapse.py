"""Adds collapse keys, and what replaced a notification."""

from notifier.adapters.postgres.migrations.sql_script import run_sql_script

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """Run 0014_collapse.sql. Processes of the version before may run meanwhile."""
    run_sql_script(__file__)
