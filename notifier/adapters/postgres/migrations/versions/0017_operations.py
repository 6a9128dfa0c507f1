"""Adds operations, and which notifications were sent again."""

from notifier.adapters.postgres.migrations.sql_script import run_sql_script

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    """Run 0017_operations.sql. Processes of the version before may run meanwhile."""
    run_sql_script(__file__)
