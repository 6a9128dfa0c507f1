-- Writes results whose row had moved on before record_sent.sql or record.sql. A result that this
-- worker has written already changes nothing. Otherwise the attempt is added, or another process's
-- attempt of this claim is corrected, and marked late. A late Accepted settles a row that is still
-- at this claim.
-- Parameters: $1 ids, $2 claims, $3 outcomes, $4 providers, $5 codes, $6 details, $7 references of
-- the provider, $8 seconds waited in the queue, $9 seconds that the call took, $10 seconds since it
-- ended, $11 this worker's id.
-- Returns: one row per notification that exists. `status` is 'sent' if this result settled the row,
-- the row's status if this worker had written the result before, otherwise null.
-- Repeating it changes nothing.
WITH result AS (
    SELECT *, clock_timestamp() - finished_ago_s * interval '1 second' AS finished_at,
           clock_timestamp() - (finished_ago_s + took_s) * interval '1 second' AS started_at
    FROM unnest($1::uuid[], $2::integer[], $3::text[], $4::text[], $5::text[], $6::text[],
                $7::text[], $8::real[], $9::float8[], $10::float8[])
        AS t (id, claim, outcome, provider, code, detail, reference, queue_wait_s, took_s,
              finished_ago_s)
), fresh AS (
    SELECT r.* FROM result r JOIN notifications n ON n.id = r.id
    WHERE n.id = ANY ($1::uuid[]) AND n.claim >= r.claim AND NOT EXISTS (
        SELECT FROM attempts a WHERE a.id = r.id AND a.claim = r.claim AND a.recorded_by = $11)
), written AS (
    INSERT INTO attempts (id, claim, recorded_by, started_at, finished_at, queue_wait_s, late,
                          provider, outcome, code, detail, reference)
    SELECT id, claim, $11, started_at, finished_at, queue_wait_s, true, provider, outcome, code,
           detail, reference
    FROM fresh
    ON CONFLICT (id, claim) DO UPDATE SET
        recorded_by = excluded.recorded_by, started_at = excluded.started_at,
        finished_at = excluded.finished_at, late = true, provider = excluded.provider,
        outcome = excluded.outcome, code = excluded.code, detail = excluded.detail,
        reference = excluded.reference
), settled AS (
    UPDATE notifications n SET
        status = 'sent', due_at = NULL, claimed_by = NULL, updated_at = now()
    FROM fresh f
    WHERE n.id = f.id AND n.id = ANY ($1::uuid[]) AND n.claim = f.claim AND f.outcome = 'accepted'
      AND n.status::text IN ('queued', 'retrying', 'failed', 'expired', 'cancelled')
    RETURNING n.id
), forgiven AS (
    DELETE FROM failures WHERE id IN (SELECT id FROM settled)
)
SELECT r.id, f.id IS NOT NULL AS late, date_part('epoch', now() - n.created_at) AS age_s,
       CASE WHEN s.id IS NOT NULL THEN 'sent'
            WHEN f.id IS NULL AND n.claim = r.claim THEN n.status::text END AS status
FROM result r
JOIN notifications n ON n.id = r.id
LEFT JOIN fresh f ON f.id = r.id AND f.claim = r.claim
LEFT JOIN settled s ON s.id = f.id AND n.claim = f.claim
WHERE n.id = ANY ($1::uuid[])
