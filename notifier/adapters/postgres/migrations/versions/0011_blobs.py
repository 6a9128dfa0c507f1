"""Adds the blobs: files of emails, and whole mails."""

from notifier.adapters.postgres.migrations.sql_script import run_sql_script

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Run 0011_blobs.sql. Processes of the version before may run meanwhile."""
    run_sql_script(__file__)
