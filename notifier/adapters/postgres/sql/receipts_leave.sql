-- Takes care of locked receipts: those that are done are removed, the others are due again later.
-- Parameters: $1 providers, $2 keys, $3 seconds until they are due again (null: they are done), $4
-- whether their recipients are suppressed.
-- Returns: nothing.
WITH given AS MATERIALIZED (
    SELECT * FROM unnest($1::text[], $2::uuid[], $3::float8[], $4::boolean[])
        AS t (provider, key, after_s, is_suppressed)
), removed AS (
    DELETE FROM receipts_unmatched u USING given g
    WHERE u.key = ANY ($2) AND u.provider = g.provider AND u.key = g.key AND g.after_s IS NULL
)
UPDATE receipts_unmatched u SET next_at = now() + g.after_s * interval '1 second',
                                is_suppressed = u.is_suppressed OR g.is_suppressed
FROM given g
WHERE u.provider = g.provider AND u.key = g.key AND g.after_s IS NOT NULL
