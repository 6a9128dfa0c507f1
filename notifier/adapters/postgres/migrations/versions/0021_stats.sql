-- What was accepted, what ended, and which calls of providers were recorded, until a process has
-- counted it into `stats` and deletes it (sql/stats_take.sql). The triggers below write one row for
-- each statement, minute and provider, whichever version of the program runs the statement.
--   what      accepted (by the API), call (of a provider), or the status in which it ended
--   reason    of a call its outcome, of an end its reason
--   sign      -1: an end that was removed, because it is sent again or was sent after all
--   minute    the minute in which it happened
--   wait_s, call_s   of calls alone: one value per id
CREATE TABLE stats_changes (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    noted_at timestamptz NOT NULL DEFAULT now(),
    minute timestamptz NOT NULL,
    sign smallint NOT NULL DEFAULT 1,
    what text NOT NULL,
    provider text NOT NULL DEFAULT '',
    reason text NOT NULL DEFAULT '',
    code text NOT NULL DEFAULT '',
    ids uuid[] NOT NULL,
    wait_s real[],
    call_s real[]
) WITH (vacuum_truncate = off, autovacuum_vacuum_threshold = 5000,
        autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
-- Ids do not compress.
ALTER TABLE stats_changes ALTER COLUMN ids SET STORAGE EXTERNAL;

-- How much of what happened in a minute, an hour or a day (of UTC).
--   step      minute, hour or day; `at` is when it begins
--   tag       '': without one; 'other': those beyond the first 200 of the tenant in the hour
--   provider  '': of what no provider had
--   refused   of those that failed, those with that reason
--   waits, calls   how many calls waited, and took, how long: see BOUNDS_S in domain/stats.py
CREATE TABLE stats (
    step text COLLATE "C" NOT NULL,
    at timestamptz NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    is_test boolean NOT NULL,
    queue text COLLATE "C" NOT NULL,
    tag text COLLATE "C" NOT NULL,
    provider text COLLATE "C" NOT NULL,
    accepted bigint NOT NULL,
    sent bigint NOT NULL,
    delivered bigint NOT NULL,
    undelivered bigint NOT NULL,
    failed bigint NOT NULL,
    refused bigint NOT NULL,
    expired bigint NOT NULL,
    cancelled bigint NOT NULL,
    suppressed bigint NOT NULL,
    waits bigint[] NOT NULL,
    calls bigint[] NOT NULL,
    PRIMARY KEY (step, at, tenant, is_test, queue, tag, provider)
) WITH (fillfactor = 70, vacuum_truncate = off);
CREATE INDEX stats_tenant ON stats (tenant, is_test, step, at);

-- The tags that the campaign guard has paused, or would have, if no other tenant used them.
--   share  of their results, that was bad
CREATE TABLE judged_tags (
    tag text COLLATE "C" NOT NULL PRIMARY KEY,
    share double precision NOT NULL,
    at timestamptz NOT NULL DEFAULT now()
);

-- The functions may raise nothing that depends on the data of a row: what raises here fails the
-- statement that accepts or records. They run with the rights of their owner, so that a process of the
-- version before needs none.
CREATE FUNCTION note_accepted() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    -- What is sent again has a claim.
    INSERT INTO stats_changes (minute, what, ids)
    SELECT date_trunc('minute', created_at), 'accepted', array_agg(id)
    FROM added WHERE claim = 0
    GROUP BY 1;
    RETURN NULL;
END
$$;

CREATE FUNCTION note_calls() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    -- Nobody knows how long the call of a worker that died took. A late result makes a notification
    -- sent only if it settles it: record_late.sql notes that.
    INSERT INTO stats_changes (minute, what, provider, reason, ids, wait_s, call_s)
    SELECT date_trunc('minute', finished_at), 'call', provider, outcome, array_agg(id),
           array_agg(queue_wait_s),
           array_agg(CASE WHEN isfinite(started_at) AND isfinite(finished_at)
                          THEN date_part('epoch', finished_at - started_at)::real END)
    FROM added WHERE NOT late AND code <> 'worker_died'
    GROUP BY 1, 3, 4;
    RETURN NULL;
END
$$;

CREATE FUNCTION note_ends() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    -- What may not be sent at all ends in the statement that accepts it, at the same instant. (So may
    -- what Postgres refuses to claim, which has a code.)
    INSERT INTO stats_changes (minute, what, ids)
    SELECT date_trunc('minute', at), 'accepted', array_agg(id)
    FROM added WHERE claim = 0 AND first_at = at AND code = ''
    GROUP BY 1;
    INSERT INTO stats_changes (minute, what, provider, reason, code, ids)
    SELECT date_trunc('minute', at), status::text, provider, reason, code, array_agg(id)
    FROM added
    GROUP BY 1, 2, 3, 4, 5;
    RETURN NULL;
END
$$;

CREATE FUNCTION note_removed_ends() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO stats_changes (minute, sign, what, provider, reason, code, ids)
    SELECT date_trunc('minute', at), -1, status::text, provider, reason, code, array_agg(id)
    FROM removed
    GROUP BY 1, 3, 4, 5, 6;
    RETURN NULL;
END
$$;

CREATE FUNCTION note_changed_ends() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO stats_changes (minute, sign, what, provider, reason, code, ids)
    SELECT date_trunc('minute', at), sign, status::text, provider, reason, code, array_agg(id)
    FROM (
        (SELECT id, at, status, provider, reason, code, -1 AS sign FROM removed
         EXCEPT ALL SELECT id, at, status, provider, reason, code, -1 FROM added)
        UNION ALL
        (SELECT id, at, status, provider, reason, code, 1 FROM added
         EXCEPT ALL SELECT id, at, status, provider, reason, code, 1 FROM removed)
    ) AS changed
    GROUP BY 1, 2, 3, 4, 5, 6;
    RETURN NULL;
END
$$;

-- A trigger is made in an instant, but waits for the statements that write to its table and stops all
-- that come after. So it waits for at most 200 ms, lets the others go on for as long, and repeats. An
-- attempt that fails keeps no lock.
DO $$
BEGIN
    FOR attempt IN 1..300 LOOP
        BEGIN
            SET LOCAL lock_timeout = '200ms';
            CREATE TRIGGER note_accepted AFTER INSERT ON live
                REFERENCING NEW TABLE AS added
                FOR EACH STATEMENT EXECUTE FUNCTION note_accepted();
            CREATE TRIGGER note_calls AFTER INSERT ON attempts
                REFERENCING NEW TABLE AS added
                FOR EACH STATEMENT EXECUTE FUNCTION note_calls();
            CREATE TRIGGER note_ends AFTER INSERT ON ends
                REFERENCING NEW TABLE AS added
                FOR EACH STATEMENT EXECUTE FUNCTION note_ends();
            CREATE TRIGGER note_removed_ends AFTER DELETE ON ends
                REFERENCING OLD TABLE AS removed
                FOR EACH STATEMENT EXECUTE FUNCTION note_removed_ends();
            CREATE TRIGGER note_changed_ends AFTER UPDATE ON ends
                REFERENCING OLD TABLE AS removed NEW TABLE AS added
                FOR EACH STATEMENT EXECUTE FUNCTION note_changed_ends();
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
