"""Adds lookups, by day, and the tag and topic of notifications."""

from notifier.adapters.postgres.migrations.sql_script import run_sql_script

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Run 0012_lookups.sql. Processes of the version before may run meanwhile."""
    run_sql_script(__file__)
