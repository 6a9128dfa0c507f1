-- Unspent pointers ($1 ids, $2 claims): a row still queued at that claim, or claimed from it by
-- this worker ($3) and not sent, is due again at its old place; $4, $5 bound the ids. A pointer that
-- was never asked for ($6) leaves a row alone that is being sent: another copy of it is in hand.
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
       OR (n.status::text = 'sending' AND n.claim = t.claim + 1 AND n.claimed_by = $3
           AND NOT t.is_buffered))
RETURNING n.queue, n.status::text AS status, date_part('epoch', now() - n.created_at) AS age_s
