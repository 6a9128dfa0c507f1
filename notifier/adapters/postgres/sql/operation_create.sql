-- Stores an operation, unless too many of the tenant and mode run.
-- Parameters: $1 id, $2 tenant (null: all), $3 mode, $4 kind, $5 filter as it is shown, $6 filter for
-- the search, $7 its version, $8 ids, $9 rate, $10 note, $11 actor, $12 and $13 the digests of its
-- idempotency key and of the request (null: none), $14 the most that may run.
-- Returns: the row, or none.
INSERT INTO operations (id, tenant, mode, kind, filter, selection, version, ids, rate_per_s, note, actor,
                        key, body)
SELECT $1, $2, $3, $4, $5::text::jsonb, $6::text::jsonb, $7, $8, $9, $10, $11, $12, $13
WHERE (SELECT count(*) FROM operations
       WHERE status = 'running' AND tenant IS NOT DISTINCT FROM $2 AND mode = $3) < $14
RETURNING *
