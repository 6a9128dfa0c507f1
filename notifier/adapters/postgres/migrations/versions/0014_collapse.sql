-- Which notification has a collapse key now, and which had it before.
--   key  the first 128 bits of SHA-256 of tenant, mode, channel, recipient and key
CREATE TABLE collapse_keys (
    key uuid NOT NULL PRIMARY KEY,
    id uuid NOT NULL,
    previous uuid
) WITH (fillfactor = 70, vacuum_truncate = off);

-- What newer notifications have replaced and is not known to have ended.
CREATE TABLE collapsed (
    replaced_by uuid NOT NULL,
    id uuid NOT NULL,
    PRIMARY KEY (replaced_by, id)
) WITH (vacuum_truncate = off);

-- How many notifications a recipient has had on a day: see domain/recipient_caps.py.
--   hash  of tenant, mode, channel and recipient
CREATE TABLE recipient_counts (
    hash uuid NOT NULL,
    day date NOT NULL,
    count integer NOT NULL,
    PRIMARY KEY (hash, day)
) WITH (fillfactor = 70, vacuum_truncate = off);

-- ends:
--   replaced_by  the newer notification of the same collapse key; null without one
-- The version before works with this column, which it does not know. As in 0008, each try waits for
-- at most 200 ms.
DO $$
BEGIN
    FOR attempt IN 1..300 LOOP
        BEGIN
            SET LOCAL lock_timeout = '200ms';
            ALTER TABLE ends ADD COLUMN replaced_by uuid;
            EXIT;
        EXCEPTION WHEN lock_not_available THEN
            IF attempt = 300 THEN
                RAISE;
            END IF;
            PERFORM pg_sleep(0.2);
        END;
    END LOOP;
END
$$;
SET LOCAL lock_timeout = 0;
