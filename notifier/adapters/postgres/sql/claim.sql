-- Claims rows that are still queued at the requested claim: -> sending, or -> expired if
-- expires_at has passed.
-- Parameters: $1 ids without duplicates, $2 the claim of each, $3 this worker's id, $4 and $5 the
-- least and the greatest id, by which the plan skips the partitions of other days.
-- Returns: one row per changed notification; `waited_s` since it was ready and `age_s` since it
-- was accepted, in seconds.
-- Repeating it changes nothing: the claim has moved on.
-- (The status is compared as text so that Postgres uses no index of waiting rows to find these
-- ids: old statistics describe such an index as small.)
UPDATE notifications SET
    status = CASE WHEN expires_at <= now() THEN 'expired' ELSE 'sending' END::notification_status,
    claim = claim + CASE WHEN expires_at <= now() THEN 0 ELSE 1 END,
    claimed_by = CASE WHEN expires_at <= now() THEN NULL ELSE $3::uuid END,
    rescues = 0,
    due_at = NULL,
    updated_at = now()
WHERE id = ANY ($1::uuid[]) AND id BETWEEN $4 AND $5
  AND status::text = 'queued'
  AND claim = ($2::integer[])[array_position($1::uuid[], id)]
RETURNING id, status::text AS status, claim, queue, recipient, content, tries, max_tries,
          date_part('epoch', now() - ready_at) AS waited_s,
          date_part('epoch', now() - created_at) AS age_s
