-- Takes fallbacks that are to be looked at, for some time: no other process gets them meanwhile.
-- Parameters: $1 for how many seconds, $2 the fields of submits that this version knows, $3 how many
-- at most.
-- Returns: one row per fallback, the longest due first; `begun_at` says since when it may have been
-- submitted by another process, or by an earlier try of this one.
WITH due AS (
    SELECT id FROM fallbacks
    WHERE look_at <= now() AND needs <@ $2::text[]
    ORDER BY look_at LIMIT $3
    FOR UPDATE SKIP LOCKED
), taken AS (
    UPDATE fallbacks f SET look_at = now() + $1 * interval '1 second'
    WHERE f.id = ANY (ARRAY(SELECT id FROM due))
    RETURNING f.id, submit, unless, at - after_s * interval '1 second' AS since, at, begun_at,
              look_at AS held_until, now() AS now
)
SELECT * FROM taken ORDER BY at, id
