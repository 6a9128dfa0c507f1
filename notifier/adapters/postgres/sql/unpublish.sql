-- Makes rows due again whose pointers the broker did not confirm, unless a worker has claimed
-- them or they were published again.
-- Parameters: $1 ids, $2 claims, $3 the times of publishing, in seconds since the epoch.
-- Returns: no rows.
-- Repeating it changes nothing.
UPDATE notifications n SET published_at = NULL, due_at = ready_at, updated_at = now()
FROM unnest($1::uuid[], $2::integer[], $3::float8[]) AS t (id, claim, published_at)
WHERE n.id = t.id AND n.id = ANY ($1::uuid[]) AND n.status::text = 'queued'
  AND n.claim = t.claim AND n.due_at IS NULL AND n.published_at = to_timestamp(t.published_at)
