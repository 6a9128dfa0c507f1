-- $1 ids and $2 their claims, an id once; $3 this worker; $4, $5 the least and greatest id: they
-- let the plan leave out the days that cannot hold any of them. The status is compared as text: no
-- index of waiting rows, small in old statistics, may be taken for the way to these ids.
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
