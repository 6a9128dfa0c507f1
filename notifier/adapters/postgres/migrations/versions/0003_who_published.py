"""Adds `published_by`, by which recovery finds the rows that a dead process took."""

from notifier.adapters.postgres.migrations.sql_script import run_sql_script

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Run 0003_who_published.sql."""
    run_sql_script(__file__)
