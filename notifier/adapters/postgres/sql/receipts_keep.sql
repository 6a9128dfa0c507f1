-- Keeps receipts with their notifications.
-- Parameters: $1 ids, $2 claims of their attempts, $3 providers, $4 keys, $5 events, $6 reasons, $7
-- codes, $8 details, $9 times of the provider, $10 times at which they were received, $11 and $12 the
-- least and the greatest id.
-- Returns: one row per receipt that was not kept before: copies may come for days. `is_erased`: its
-- notification was erased, so that no text of the provider is kept. The lock waits for an erasure
-- (erase_lock.sql) and makes it wait.
-- Repeating it changes nothing and returns no row.
WITH stored AS (
    -- A day that was dropped meanwhile has none.
    SELECT id, recipient = '' AS is_erased FROM notifications
    WHERE id = ANY ($1::uuid[]) AND id BETWEEN $11 AND $12
    ORDER BY id
    FOR SHARE
), kept AS (
    INSERT INTO receipts (id, claim, provider, key, event, reason, code, detail, provider_at, received_at)
    SELECT id, claim, provider, key, event, reason, code,
           CASE WHEN s.is_erased THEN '' ELSE detail END, provider_at, received_at
    FROM unnest($1::uuid[], $2::integer[], $3::text[], $4::uuid[], $5::text[], $6::text[], $7::text[],
                $8::text[], $9::timestamptz[], $10::timestamptz[])
        AS t (id, claim, provider, key, event, reason, code, detail, provider_at, received_at)
    JOIN stored s USING (id)
    ON CONFLICT (id, provider, key) DO NOTHING
    RETURNING id, provider, key
)
SELECT k.id, k.provider, k.key, s.is_erased FROM kept k JOIN stored s ON s.id = k.id
