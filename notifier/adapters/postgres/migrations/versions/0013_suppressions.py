"""Adds suppressions."""

from notifier.adapters.postgres.migrations.sql_script import run_sql_script

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Run 0013_suppressions.sql. Processes of the version before may run meanwhile."""
    run_sql_script(__file__)
