-- Stores an operation, unless too many of the tenant run.
-- Parameters: $1 id, $2 tenant (null: the deployment), $3 mode, $4 kind, $5 filter as it is shown, $6
-- filter for the search, $7 ids, $8 rate, $9 note, $10 actor, $11 and $12 the digests of its
-- idempotency key and of the request (null: none), $13 the most that may run.
-- Returns: the row, or none.
INSERT INTO operations (id, tenant, mode, kind, filter, selection, ids, rate_per_s, note, actor, key,
                        body)
SELECT $1, $2, $3, $4, $5::text::jsonb, $6::text::jsonb, $7, $8, $9, $10, $11, $12
WHERE (SELECT count(*) FROM operations
       WHERE status = 'running' AND tenant IS NOT DISTINCT FROM $2) < $13
RETURNING *
