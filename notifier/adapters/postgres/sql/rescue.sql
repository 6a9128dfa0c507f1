-- Makes due again the rows of one queue whose message is presumed lost, at most 500. A message is
-- presumed lost no sooner than 10 s x 2^n after it was published, n being the rescues of its row
-- at this claim. The claim stays, so a copy of the message that still arrives does no harm.
-- Parameters: $1 queue, $2 the time, in seconds since the epoch, before which a row was
-- published.
-- Returns: the number of rows, in the command tag.
-- Repeating it takes the next rows, if more than 500 are lost.
WITH lost AS (
    SELECT id FROM notifications
    WHERE queue = $1 AND status = 'queued' AND due_at IS NULL
      AND published_at < to_timestamp($2)
      AND published_at < now() - interval '10 seconds' * (2 ^ least(rescues, 12))
    ORDER BY published_at
    LIMIT 500
    FOR UPDATE SKIP LOCKED
)
UPDATE notifications n SET
    published_at = NULL, due_at = n.ready_at, is_retry = false,
    rescues = least(n.rescues + 1, 32767), updated_at = now()
WHERE n.id = ANY (ARRAY(SELECT id FROM lost)) AND n.status::text = 'queued' AND n.due_at IS NULL
