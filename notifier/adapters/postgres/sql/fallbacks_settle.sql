-- Stores the results of fallbacks. One that another process has taken since keeps its state, unless
-- this process has submitted it: then it is done. What was submitted is noted in any case, and a
-- document that is not needed any more is removed.
-- Parameters, one value per fallback: $1 ids, $2 until when this process holds them, $3 when they are
-- looked at again (null: they are done), $4 ids of what was submitted (null: nothing was), $5 whether
-- it may have been submitted all the same.
-- Returns: the fallbacks that were changed.
-- Repeating it changes nothing.
WITH result AS (
    SELECT * FROM unnest($1::uuid[], $2::timestamptz[], $3::timestamptz[], $4::uuid[], $5::boolean[])
        AS t (id, held_until, look_at, notification, may_be_stored)
), found AS (
    SELECT r.* FROM fallbacks f JOIN result r USING (id)
    WHERE f.id = ANY ($1::uuid[])  -- by the index, whatever the statistics say
      AND (f.look_at = r.held_until OR (r.notification IS NOT NULL AND f.notification IS NULL))
    ORDER BY id FOR UPDATE OF f
)
UPDATE fallbacks f SET
    look_at = r.look_at,
    begun_at = CASE WHEN r.may_be_stored THEN f.begun_at END,
    notification = coalesce(f.notification, r.notification),
    submit = CASE WHEN r.look_at IS NOT NULL THEN f.submit END
FROM found r
WHERE f.id = r.id AND f.id = ANY (ARRAY(SELECT id FROM found))
  AND (f.look_at = r.held_until OR (r.notification IS NOT NULL AND f.notification IS NULL))
RETURNING f.id
