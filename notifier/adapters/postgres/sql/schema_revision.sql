-- Reads the revision of the schema.
-- Parameters: none.
-- Returns: one row, none if no migration was applied.
SELECT version_num FROM alembic_version
