-- Writes results whose row had moved on before record_sent.sql or record.sql. A result that this
-- worker has written already changes nothing. Otherwise the attempt is added, or another process's
-- attempt of this claim is corrected, and marked late. A late Accepted ends a row that is unclaimed,
-- or removes its end, unless a later claim has an attempt: the notification is then sent. A later
-- claim without an attempt was given back, and nothing was sent for it.
-- Parameters: $1 ids, $2 claims, $3 outcomes, $4 providers, $5 codes, $6 details, $7 references of
-- the provider, $8 HTTP statuses, $9 seconds waited in the queue, $10 seconds that the call took,
-- $11 seconds since it ended, $12 this worker's id.
-- Returns: one row per notification that exists. `status` is 'sent' if this result settled it, its
-- status if this worker had written the result before, otherwise null. `is_unsettled` says that
-- another process changed a row meanwhile that this would have settled: then it must be repeated.
-- Repeating it writes nothing twice.
WITH result AS (
    SELECT *, clock_timestamp() - finished_ago_s * interval '1 second' AS finished_at,
           clock_timestamp() - (finished_ago_s + took_s) * interval '1 second' AS started_at
    FROM unnest($1::uuid[], $2::integer[], $3::text[], $4::text[], $5::text[], $6::text[],
                $7::text[], $8::smallint[], $9::real[], $10::float8[], $11::float8[])
        AS t (id, claim, outcome, provider, code, detail, reference, http_status, queue_wait_s,
              took_s, finished_ago_s)
), known AS (
    SELECT r.*, n.created_at, n.queue, e.status::text AS end_status,
           least(coalesce(l.tries, e.tries, 0) + 1, 32767)::smallint AS spent,
           coalesce(l.claim, e.claim, r.claim) AS present_claim,
           l.id IS NOT NULL AND l.claimed_by = '00000000-0000-0000-0000-000000000000' AS is_waiting,
           l.id IS NOT NULL AS is_live,
           a.id IS NOT NULL AS is_own,
           r.outcome = 'accepted' AND later.id IS NULL
               AND (l.claimed_by = '00000000-0000-0000-0000-000000000000'
                    OR (l.id IS NULL AND e.status IN ('failed', 'expired', 'cancelled', 'suppressed')))
               AS is_settling
    FROM result r
    JOIN notifications n ON n.id = r.id
    LEFT JOIN live l ON l.id = r.id AND l.id = ANY ($1::uuid[])
    LEFT JOIN ends e ON e.id = r.id AND e.id = ANY ($1::uuid[])
    LEFT JOIN attempts a ON a.id = r.id AND a.id = ANY ($1::uuid[]) AND a.claim = r.claim
                            AND a.recorded_by = $12
    LEFT JOIN (SELECT id, max(claim) AS claim FROM attempts WHERE id = ANY ($1::uuid[]) GROUP BY id)
        later ON later.id = r.id AND later.claim > r.claim
    WHERE n.id = ANY ($1::uuid[])
), fresh AS (
    SELECT * FROM known WHERE NOT is_own AND present_claim >= claim
), written AS (
    INSERT INTO attempts (id, claim, recorded_by, started_at, finished_at, queue_wait_s, late,
                          provider, outcome, code, detail, reference, http_status)
    SELECT id, claim, $12, started_at, finished_at, queue_wait_s, true, provider, outcome, code,
           detail, reference, http_status
    FROM fresh
    ON CONFLICT (id, claim) DO UPDATE SET
        recorded_by = excluded.recorded_by, started_at = excluded.started_at,
        finished_at = excluded.finished_at, late = true, provider = excluded.provider,
        outcome = excluded.outcome, code = excluded.code, detail = excluded.detail,
        reference = excluded.reference, http_status = excluded.http_status
), settled_row AS (
    DELETE FROM live l USING known k
    WHERE l.id = ANY ($1::uuid[]) AND l.id = k.id AND l.claim = k.present_claim AND k.is_settling
      AND l.claimed_by = '00000000-0000-0000-0000-000000000000'
    RETURNING l.id, k.claim
), settled_end AS (
    DELETE FROM ends e USING known k
    WHERE e.id = ANY ($1::uuid[]) AND e.id = k.id AND e.claim = k.present_claim AND k.is_settling
    RETURNING e.id, k.claim
), settled AS (
    SELECT * FROM settled_row UNION ALL SELECT * FROM settled_end
)
-- :parts
SELECT k.id, k.claim, NOT k.is_own AND k.present_claim >= k.claim AS late,
       date_part('epoch', now() - k.created_at) AS age_s,
       CASE WHEN s.id IS NOT NULL THEN 'sent'
            WHEN NOT k.is_own OR k.present_claim <> k.claim THEN NULL
            WHEN k.is_waiting THEN 'retrying'
            WHEN k.is_live THEN NULL
            ELSE coalesce(k.end_status, 'sent') END AS status,
       k.is_settling AND s.id IS NULL AS is_unsettled
FROM known k
LEFT JOIN settled s ON s.id = k.id AND s.claim = k.claim
