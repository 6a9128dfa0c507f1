-- Adds a version of a template, unless the newest one has the same document. The caller holds the
-- lock of template_lock.sql: this statement sees what the others before it have stored.
-- Parameters: $1 id, $2 tenant, $3 name, $4 channels, $5 the document as submitted, $6 the document
-- as it is rendered, null if it is the same, $7 actor.
-- Returns: the newest version after it, and whether it `is_new`.
WITH newest AS (
    SELECT name, version, channels, created_at, actor, document FROM templates
    WHERE tenant = $2 AND name = $3
    ORDER BY version DESC LIMIT 1
), added AS (
    INSERT INTO templates (id, tenant, name, version, channels, document, compiled, actor)
    SELECT $1::uuid, $2, $3, coalesce((SELECT version FROM newest), 0) + 1, $4::text[], $5::bytea,
           $6::bytea, $7
    WHERE NOT EXISTS (SELECT FROM newest WHERE document = $5::bytea)
    RETURNING name, version, channels, created_at, actor
)
SELECT name, version, channels, created_at, actor, true AS is_new FROM added
UNION ALL
SELECT name, version, channels, created_at, actor, false FROM newest
WHERE NOT EXISTS (SELECT FROM added)
