-- Reads the versions of a template, the newest first, at most 1,000.
-- Parameters: $1 tenant, $2 name.
SELECT name, version, channels, created_at, actor FROM templates
WHERE tenant = $1 AND name = $2
ORDER BY version DESC LIMIT 1000
