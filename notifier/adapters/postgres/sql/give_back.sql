-- Makes rows due again without spending a try: those still queued at the requested claim, and
-- those that this worker claimed from it and has not sent. A row keeps its place in the queue;
-- one whose expires_at has passed expires instead.
-- Parameters: $1 ids without duplicates, $2 the claim of each, $3 this worker's id, $4 and $5 the
-- least and the greatest id, $6 whether the pointer was only buffered and never claimed: then a
-- row that is being sent stays, because this worker is sending it for another copy of the
-- pointer.
-- Returns: one row per changed notification; `age_s` since it was accepted, in seconds.
-- Repeating it changes nothing.
UPDATE notifications n SET
    status = CASE WHEN expires_at <= now() THEN 'expired' ELSE 'queued' END::notification_status,
    due_at = CASE WHEN expires_at <= now() THEN NULL ELSE ready_at END,
    is_retry = false,
    published_at = NULL,
    claimed_by = NULL,
    updated_at = now()
FROM unnest($1::uuid[], $2::integer[], $6::boolean[]) AS t (id, claim, is_buffered)
WHERE n.id = t.id AND n.id = ANY ($1::uuid[]) AND n.id BETWEEN $4 AND $5
  AND ((n.status::text = 'queued' AND n.claim = t.claim AND n.due_at IS NULL)
       OR (n.status::text = 'sending' AND n.claim - 1 = t.claim AND n.claimed_by = $3
           AND NOT t.is_buffered))
RETURNING n.queue, n.status::text AS status, date_part('epoch', now() - n.created_at) AS age_s
