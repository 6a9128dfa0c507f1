-- Reads a version as it is rendered.
-- Parameters: $1 id.
-- Returns: at most one row.
SELECT id, tenant, name, version, coalesce(compiled, document) AS document FROM templates WHERE id = $1
