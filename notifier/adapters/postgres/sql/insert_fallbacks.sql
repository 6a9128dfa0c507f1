-- A part of insert.sql and insert_keyed.sql: stores the fallbacks of what they store. One whose
-- notification was stored before is stored already.
-- Parameters: $1 ids, $2 channels, $3 JSON documents of submits, $4 their fields, separated by spaces,
-- $5 after how long it is submitted from when its notification is due, $6 after how long that is due,
-- $7 what makes it needless, $8 after how long it is looked at then (one for all).
, falling_back AS (
    INSERT INTO fallbacks (id, after_s, channel, unless, at, look_at, submit, needs)
    SELECT id, date_part('epoch', after), channel, unless, (SELECT now FROM clock) + delay + after,
           (SELECT now FROM clock) + delay + $8::interval, submit, string_to_array(needs, ' ')
    FROM unnest($1::uuid[], $2::text[], $3::bytea[], $4::text[], $5::interval[], $6::interval[],
                $7::text[])
        AS t (id, channel, submit, needs, after, delay, unless) JOIN stored USING (id)
    ON CONFLICT (id) DO NOTHING
)
