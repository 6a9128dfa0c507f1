-- Notes what the calls of webhooks resulted in, and disables those whose calls have only failed for
-- long. After a day without a failure the next one counts as the first. Calls of another URL than that of the webhook do not count.
-- Parameters, one value per webhook: $1 ids, $2 the URL of the calls, $3 how many seconds ago the last
-- one succeeded (null: none did), $4 ... the last one failed, $5 ... the first one failed that no
-- success followed. $6 after how many seconds of failures a webhook is disabled.
-- Returns: the webhooks that this call disabled.
-- Repeating it changes nothing but the times by how much later it is.
WITH called AS (
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::float8[], $4::float8[], $5::float8[])
        AS t (id, url, succeeded_s, failed_s, failing_s)
), found AS (
    SELECT w.id, w.status, c.succeeded_s, c.failed_s, c.failing_s,
           CASE WHEN c.succeeded_s IS NULL AND w.failing_since IS NOT NULL
                     AND coalesce(w.last_failure_at > now() - interval '1 day', true) THEN w.failing_since
                ELSE now() - c.failing_s * interval '1 second' END AS failing_since
    FROM webhooks w JOIN called c ON c.id = w.id AND c.url = w.url
    ORDER BY w.id FOR UPDATE OF w
), judged AS (
    SELECT *, status = 'enabled' AND coalesce(failing_since <= now() - $6 * interval '1 second', false)
              AS ends
    FROM found
), noted AS (
    UPDATE webhooks w SET
        last_success_at = greatest(w.last_success_at, now() - j.succeeded_s * interval '1 second'),
        last_failure_at = greatest(w.last_failure_at, now() - j.failed_s * interval '1 second'),
        failing_since = j.failing_since,
        status = CASE WHEN j.ends THEN 'disabled' ELSE w.status END,
        reason = CASE WHEN j.ends THEN 'failing' ELSE w.reason END
    FROM judged j WHERE w.id = j.id
    RETURNING w.*, j.ends
)
SELECT * FROM noted WHERE ends
