-- Adds an entry to the audit.
-- Parameters: $1 id, $2 tenant (null: the deployment), $3 actor, $4 action, $5 target, $6 and $7 the
-- JSON documents before and after, $8 note, $9 id of the request.
-- Returns: nothing. Repeating it changes nothing.
INSERT INTO audit (id, tenant, actor, action, target, before, after, note, request_id)
VALUES ($1, $2, $3, $4, $5, $6::jsonb, $7::jsonb, $8, $9)
ON CONFLICT (id) DO NOTHING
