"""Who took a row to publish it: what the relay of a dead process took is found by it."""

from notifier.adapters.postgres.migrations.plain import run_sql_beside

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Run 0003_who_published.sql."""
    run_sql_beside(__file__)
