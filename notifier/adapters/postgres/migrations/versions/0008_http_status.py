"""Keeps the HTTP status of an attempt apart from the provider's code."""

from notifier.adapters.postgres.migrations.sql_script import run_sql_script

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Run 0008_http_status.sql. Processes of the version before may run meanwhile."""
    run_sql_script(__file__)
