"""Adds the roll-ups of what was accepted, sent and ended."""

from notifier.adapters.postgres.migrations.sql_script import run_sql_script

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    """Run 0021_stats.sql. Processes of the version before may run meanwhile."""
    run_sql_script(__file__)
