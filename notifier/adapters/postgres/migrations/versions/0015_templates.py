"""Adds the templates."""

from notifier.adapters.postgres.migrations.sql_script import run_sql_script

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    """Run 0015_templates.sql. Processes of the version before may run meanwhile."""
    run_sql_script(__file__)
