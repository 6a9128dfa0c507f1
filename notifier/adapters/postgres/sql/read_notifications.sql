-- Reads notifications. The status follows from where their rows are: `live` has what waits or is
-- being sent, `ends` what ended other than by being sent; what is in neither was sent, which its
-- accepted attempt proves. Without one it was lost, which must not happen.
-- Parameters: $1 ids, $2 and $3 the least and the greatest of them, $4 whether to read the contents.
-- Returns: one row per known id, the newest first. `head` is the begin of the content of one with a
-- template: its version and its locale. `result_at` and what it goes with are null until
-- the status is final; `content` is null unless it was asked for.
-- (LIMIT 1 keeps each of the seven as one look-up in the primary key per notification. As a join
-- Postgres might read the whole of `live`, if its statistics are from when it was empty.)
SELECT n.id, n.tenant, n.test_channel, s.status, n.queue, n.recipient, CASE WHEN $4 THEN n.content END AS content,
       CASE WHEN substr(n.content, 1, 13) = '{"template":"' THEN substr(n.content, 1, 160) END AS head,
       n.metadata, n.max_tries, n.created_at, coalesce(l.expires_at, n.expires_at) AS expires_at, n.tag,
       n.topic,
       coalesce(a.provider, e.provider) AS provider, c.reference,
       coalesce(l.tries, e.tries, c.tries, a.spent) AS tries,
       CASE WHEN e.code = 'claim_rejected' THEN e.code ELSE a.error END AS last_error,
       greatest(n.created_at, l.claimed_at, a.finished_at, e.at) AS updated_at,
       CASE WHEN s.status IN ('scheduled', 'retrying') THEN l.due_at END AS due_at,
       CASE WHEN s.status = 'expired' THEN 'ttl' ELSE e.reason END AS result_reason,
       coalesce(e.provider, c.provider) AS result_provider,
       coalesce(e.code, c.code) AS result_code,
       coalesce(e.detail, c.detail) AS result_detail, e.replaced_by, r.operation AS retried_by,
       f.after_s AS fallback_after_s, f.channel AS fallback_channel, f.at AS fallback_at,
       f.unless AS fallback_unless, f.notification AS fallback_notification, o.id AS fallback_of,
       CASE WHEN s.status = 'expired' THEN coalesce(e.at, l.expires_at)
            WHEN e.id IS NOT NULL THEN e.at
            WHEN s.status = 'sent' THEN c.finished_at END AS result_at,
       CASE WHEN s.status IN ('sent', 'delivered', 'undelivered') THEN c.finished_at END AS sent_at
FROM notifications n
LEFT JOIN LATERAL (SELECT * FROM live WHERE id = n.id LIMIT 1) l ON true
LEFT JOIN LATERAL (SELECT * FROM ends WHERE id = n.id AND id BETWEEN $2 AND $3 LIMIT 1) e ON true
LEFT JOIN LATERAL (SELECT * FROM attempts WHERE id = n.id AND id BETWEEN $2 AND $3
                   AND outcome = 'accepted' ORDER BY claim DESC LIMIT 1) c ON true
LEFT JOIN LATERAL (SELECT operation FROM retries WHERE id = n.id LIMIT 1) r ON true
LEFT JOIN LATERAL (SELECT * FROM fallbacks WHERE id = n.id LIMIT 1) f ON true
LEFT JOIN LATERAL (SELECT id FROM fallbacks WHERE notification = n.id LIMIT 1) o ON true
CROSS JOIN LATERAL (
    SELECT max(finished_at) AS finished_at,
           (array_agg(provider ORDER BY claim DESC))[1] AS provider,
           count(*) FILTER (WHERE outcome NOT IN ('deferred', 'throttled', 'misconfigured'))::integer AS spent,
           (array_agg(left(concat_ws(' ', outcome, nullif(code, ''), nullif(detail, '')), 500)
                      ORDER BY claim DESC) FILTER (WHERE outcome <> 'accepted'))[1] AS error
    FROM attempts WHERE id = n.id AND id BETWEEN $2 AND $3
) a
CROSS JOIN LATERAL (
    SELECT CASE WHEN l.claimed_by <> '00000000-0000-0000-0000-000000000000' THEN 'sending'
                WHEN l.expires_at <= now() THEN 'expired'
                WHEN l.due_at <= now() THEN 'queued'
                WHEN l.class = 2 THEN 'retrying'
                WHEN l.id IS NOT NULL THEN 'scheduled'
                WHEN e.id IS NOT NULL THEN e.status::text
                WHEN c.id IS NOT NULL THEN 'sent'
                ELSE 'lost' END AS status
) s
WHERE n.id = ANY ($1::uuid[]) AND n.id BETWEEN $2 AND $3
ORDER BY n.id DESC
