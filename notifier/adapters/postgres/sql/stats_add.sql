-- Adds to one row of the roll-ups. It is one transaction with stats_take.sql.
-- Parameters: $1 step, $2 when it begins, $3 tenant, $4 whether of tests, $5 queue, $6 tag, $7 provider,
-- $8 accepted, $9 sent, $10 delivered, $11 undelivered, $12 failed, $13 refused, $14 expired, $15
-- cancelled, $16 suppressed, $17 waits and $18 calls, a number per bucket.
-- Returns: nothing. Repeating it in another transaction counts twice.
INSERT INTO stats AS s (step, at, tenant, is_test, queue, tag, provider, accepted, sent, delivered,
                        undelivered, failed, refused, expired, cancelled, suppressed, waits, calls)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)
ON CONFLICT (step, at, tenant, is_test, queue, tag, provider) DO UPDATE SET
    accepted = s.accepted + excluded.accepted,
    sent = s.sent + excluded.sent,
    delivered = s.delivered + excluded.delivered,
    undelivered = s.undelivered + excluded.undelivered,
    failed = s.failed + excluded.failed,
    refused = s.refused + excluded.refused,
    expired = s.expired + excluded.expired,
    cancelled = s.cancelled + excluded.cancelled,
    suppressed = s.suppressed + excluded.suppressed,
    waits = ARRAY(SELECT coalesce(a, 0) + coalesce(b, 0)
                  FROM unnest(s.waits, excluded.waits) WITH ORDINALITY AS t (a, b, bucket)
                  ORDER BY bucket),
    calls = ARRAY(SELECT coalesce(a, 0) + coalesce(b, 0)
                  FROM unnest(s.calls, excluded.calls) WITH ORDINALITY AS t (a, b, bucket)
                  ORDER BY bucket)
