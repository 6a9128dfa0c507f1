-- Messages taken for lost: queue $1, published before $2 (seconds since the epoch), and for the
-- same claim again only after 10 s x 2^n. The claim stays, so a copy that turns up is harmless.
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
    published_at = NULL, due_at = n.ready_at, is_retry = false, rescues = n.rescues + 1,
    updated_at = now()
WHERE n.id = ANY (ARRAY(SELECT id FROM lost)) AND n.status::text = 'queued' AND n.due_at IS NULL
