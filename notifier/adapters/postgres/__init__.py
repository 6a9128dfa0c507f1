"""Postgres: the truth about every notification. Statements in sql/, the schema in migrations/."""
