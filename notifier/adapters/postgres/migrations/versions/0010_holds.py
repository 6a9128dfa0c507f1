"""Adds pauses of tags and tenants, quiet hours, and what is parked by them."""

from notifier.adapters.postgres.migrations.sql_script import run_sql_script

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Run 0010_holds.sql. Processes of the version before may run meanwhile."""
    run_sql_script(__file__)
