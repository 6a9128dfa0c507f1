-- Stores verified receipts, which are then due for matching.
-- Parameters: $1 provider, $2 keys, $3 hashes of the lookups of the references, $4 references, $5
-- events, $6 reasons, $7 codes, $8 details, $9 recipients, $10 times of the provider (null: now; one
-- that is ahead counts as now).
-- Returns: one row per receipt that was not there.
-- Repeating it changes nothing while they wait for their notifications. After that they are stored
-- and matched again, and receipts_keep.sql leaves them out.
-- (In the order of the primary key: two statements cannot wait for each other.)
INSERT INTO receipts_unmatched (provider, key, hash, reference, event, reason, code, detail,
                                recipient, provider_at, received_at, next_at)
SELECT $1, key, hash, reference, event, reason, code, detail, recipient, least(provider_at, now()),
       now(), now()
FROM unnest($2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
            $9::text[], $10::timestamptz[])
    AS t (key, hash, reference, event, reason, code, detail, recipient, provider_at)
ORDER BY key
ON CONFLICT (provider, key) DO NOTHING
RETURNING key
