-- Keeps receipts with their notifications.
-- Parameters: $1 ids, $2 claims of their attempts, $3 providers, $4 keys, $5 events, $6 reasons, $7
-- codes, $8 details, $9 times of the provider, $10 times at which they were received, $11 and $12 the
-- least and the greatest id.
-- Returns: one row per receipt that was not kept before: copies may come for days.
-- Repeating it changes nothing and returns no row.
INSERT INTO receipts (id, claim, provider, key, event, reason, code, detail, provider_at, received_at)
SELECT id, claim, provider, key, event, reason, code, detail, provider_at, received_at
FROM unnest($1::uuid[], $2::integer[], $3::text[], $4::uuid[], $5::text[], $6::text[], $7::text[],
            $8::text[], $9::timestamptz[], $10::timestamptz[])
    AS t (id, claim, provider, key, event, reason, code, detail, provider_at, received_at)
-- A day that was dropped meanwhile has no partition.
WHERE EXISTS (SELECT FROM notifications n WHERE n.id = t.id AND n.id BETWEEN $11 AND $12)
ON CONFLICT (id, provider, key) DO NOTHING
RETURNING id, provider, key
