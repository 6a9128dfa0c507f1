-- Notes that fallbacks may be submitted from now on, unless another process has taken them since.
-- Parameters: $1 ids, $2 until when this process holds them.
-- Returns: those that it still holds.
-- Repeating it changes nothing.
WITH held AS (
    SELECT f.id FROM fallbacks f
    JOIN unnest($1::uuid[], $2::timestamptz[]) AS t (id, held_until)
        ON f.id = t.id AND f.look_at = t.held_until
    WHERE f.id = ANY ($1::uuid[])  -- by the index, whatever the statistics say
    ORDER BY f.id FOR UPDATE OF f
)
UPDATE fallbacks SET begun_at = coalesce(begun_at, now())
WHERE id = ANY (ARRAY(SELECT id FROM held))
RETURNING id
