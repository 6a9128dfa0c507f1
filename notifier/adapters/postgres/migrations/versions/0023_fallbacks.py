"""Adds the fallbacks."""

from notifier.adapters.postgres.migrations.sql_script import run_sql_script

revision = "0023"
down_revision = "0022"


def upgrade() -> None:
    """Run 0023_fallbacks.sql. Processes of the version before may run meanwhile."""
    run_sql_script(__file__)
