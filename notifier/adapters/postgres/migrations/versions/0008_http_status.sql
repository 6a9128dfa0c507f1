-- attempts:
--   http_status  of the provider's response; null if there was none, and in rows of before
-- The version before works with this column, which it does not know.
--
-- No row is changed. But the statement waits for those that run, and stops all that come after. So
-- it waits for at most 200 ms, lets the others go on for as long, and repeats.
DO $$
BEGIN
    FOR attempt IN 1..300 LOOP
        BEGIN
            SET LOCAL lock_timeout = '200ms';
            ALTER TABLE attempts ADD COLUMN http_status smallint;
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
