-- Reads a page of the audit, newest first. A tenant does not see those of an earlier one of its name.
-- Parameters: $1 tenant, $2 whether entries of all tenants and of the deployment are read, $3 actor,
-- $4 action, $5 target (null: any), $6 and $7 the least and the greatest id, $8 the page's size, $9
-- the maximum of candidates to read.
-- Returns: one row per entry, and always one; `floor` is the id down to which candidates were read,
-- null if there are no others.
WITH floor AS MATERIALIZED (
    SELECT (SELECT id FROM audit WHERE id BETWEEN $6 AND $7
            ORDER BY id DESC OFFSET $9 - 1 LIMIT 1) AS id
)
SELECT e.*, f.id AS floor
FROM floor f
LEFT JOIN LATERAL (
    SELECT id, at, tenant, actor, action, target, before::text, after::text, note, request_id
    FROM audit
    WHERE ($2 OR (tenant = $1::text
               AND at >= coalesce((SELECT created_at FROM tenants
                                   WHERE name = $1 AND name <> ''), '-infinity')))
      AND ($3::text IS NULL OR actor = $3)
      AND ($4::text IS NULL OR action = $4) AND ($5::text IS NULL OR target = $5)
      AND id BETWEEN coalesce(f.id, $6) AND $7
    ORDER BY id DESC LIMIT $8
) e ON true
ORDER BY e.id DESC
