-- Ends those of these notifications that wait, because their recipient is erased. One that is being
-- sent stays.
-- Parameters: $1 ids, which erase_lock.sql has locked.
-- Returns: one row per notification that ended; `age_s` since it was accepted, in seconds.
-- Repeating it changes nothing.
WITH waiting AS (
    SELECT id FROM live
    WHERE id = ANY ($1::uuid[]) AND claimed_by = '00000000-0000-0000-0000-000000000000'
    ORDER BY id
    FOR UPDATE
), ended AS (
    DELETE FROM live
    WHERE id = ANY (ARRAY(SELECT id FROM waiting))
      AND claimed_by = '00000000-0000-0000-0000-000000000000'
    RETURNING id, claim, queue, tries, created_at
), kept AS (
    INSERT INTO ends (id, claim, status, queue, reason, tries, first_at, at)
    SELECT id, claim, 'suppressed', queue, 'erased', tries, created_at, now() FROM ended
    ON CONFLICT (id) DO NOTHING
)
-- :parts
SELECT id, queue,
       CASE WHEN isfinite(created_at) THEN date_part('epoch', now() - created_at) ELSE 0 END AS age_s
FROM ended
