-- Reads the newest version of each template of a tenant, by name.
-- Parameters: $1 tenant, $2 how many.
-- Returns: one row per template.
-- (Recursive, so that each name costs one look-up, however many versions it has.)
WITH RECURSIVE newest AS (
    (SELECT name, version, channels, created_at, actor, 1 AS number FROM templates
     WHERE tenant = $1
     ORDER BY name, version DESC LIMIT 1)
    UNION ALL
    SELECT next.*, newest.number + 1
    FROM newest
    CROSS JOIN LATERAL (SELECT name, version, channels, created_at, actor FROM templates
                        WHERE tenant = $1 AND name > newest.name
                        ORDER BY name, version DESC LIMIT 1) next
    WHERE newest.number < $2
)
SELECT name, version, channels, created_at, actor FROM newest ORDER BY name
