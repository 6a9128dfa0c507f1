-- An older process would go on writing columns that this removes. 55000 is
-- object_not_in_prerequisite_state.
DO $$
DECLARE
    running integer := (SELECT count(*) FROM workers WHERE beat_at > now() - interval '10 s');
BEGIN
    IF running > 0 THEN
        RAISE EXCEPTION '% processes have run within the last 10 s: stop all of them first', running
            USING ERRCODE = '55000';
    END IF;
END
$$;
LOCK TABLE notifications, attempts, failures, workers IN ACCESS EXCLUSIVE MODE;

-- One row for each notification that waits or is being sent; it is deleted when that ends.
--   claimed_by    the worker that is sending it; the nil UUID while it waits
--   claimed_at    when it was last claimed
--   due_at        when it may be published; with `id` its position in its class
--   ready_at      since when it has waited: a give-back leaves it
--   claim         the fence: grows with each claim and each give-back, never goes back
--   size          length of the content in bytes
--   turn          0: reserved for tenants in turn
--   class         0 given back, 1 first, 2 retry, 3 published by the process that stored it
--   deaths        how many workers died while they were sending it
--   max_tries     0: those of the priority
-- No column may be null, and none but claim, claimed_by and claimed_at changes in a claim: a claim
-- then writes no index (a HOT update), because the new version has the length of the old one.
-- vacuum_truncate would stop all processes for a moment whenever the table is empty.
CREATE TABLE live (
    id uuid NOT NULL PRIMARY KEY,
    claimed_by uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    claimed_at timestamptz NOT NULL DEFAULT '-infinity',
    created_at timestamptz NOT NULL,
    due_at timestamptz NOT NULL,
    ready_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    claim integer NOT NULL DEFAULT 0,
    size integer NOT NULL,
    turn smallint NOT NULL DEFAULT 0,
    class smallint NOT NULL,
    tries smallint NOT NULL DEFAULT 0,
    deaths smallint NOT NULL DEFAULT 0,
    max_tries smallint NOT NULL DEFAULT 0,
    queue text NOT NULL
) WITH (
    fillfactor = 50, vacuum_truncate = off, autovacuum_vacuum_threshold = 20000,
    autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0
);

-- One row for each notification that ended other than by being sent. `claim` is the last one.
CREATE TABLE ends (
    id uuid NOT NULL PRIMARY KEY,
    claim integer NOT NULL,
    status notification_status NOT NULL,
    queue text NOT NULL,
    reason text NOT NULL DEFAULT '',
    provider text NOT NULL DEFAULT '',
    code text NOT NULL DEFAULT '',
    detail text NOT NULL DEFAULT '',
    tries smallint NOT NULL,
    first_at timestamptz NOT NULL,
    at timestamptz NOT NULL
) PARTITION BY RANGE (id);
CREATE INDEX ends_status ON ends (status, id);

-- One row for each queue: which worker publishes it, and how far (JSON, see ports/leases.py).
CREATE TABLE leases (
    queue text NOT NULL PRIMARY KEY,
    holder uuid,
    term integer NOT NULL DEFAULT 0,
    beat bigint NOT NULL DEFAULT 0,
    progress jsonb NOT NULL DEFAULT '{}'
) WITH (fillfactor = 50);

--   tries  the tries spent after this attempt; null in rows of before this migration
ALTER TABLE attempts ADD COLUMN tries smallint;

DO $$
DECLARE
    day text;
BEGIN
    FOR day IN SELECT right(child.relname, 8)
               FROM pg_inherits JOIN pg_class child ON child.oid = inhrelid
               WHERE inhparent = 'notifications'::regclass LOOP
        EXECUTE format(
            'CREATE TABLE %I PARTITION OF ends FOR VALUES FROM (%L) TO (%L)', 'ends_' || day,
            uuid_at(day_start(to_date(day, 'YYYYMMDD'))),
            uuid_at(day_start(to_date(day, 'YYYYMMDD') + 1)));
    END LOOP;
END
$$;

INSERT INTO live (id, claimed_by, claimed_at, created_at, due_at, ready_at, expires_at, claim, size,
                  class, tries, deaths, max_tries, queue)
SELECT id, coalesce(claimed_by, '00000000-0000-0000-0000-000000000000'),
       CASE WHEN status = 'sending' THEN updated_at ELSE '-infinity' END, created_at,
       coalesce(due_at, ready_at), ready_at, expires_at, claim, octet_length(content),
       CASE WHEN status = 'retrying' THEN 2 ELSE 1 END, tries, deaths, coalesce(max_tries, 0), queue
FROM notifications WHERE status IN ('scheduled', 'queued', 'retrying', 'sending');

INSERT INTO ends (id, claim, status, queue, reason, provider, code, detail, tries, first_at, at)
SELECT n.id, n.claim, n.status, n.queue, coalesce(f.reason, ''), coalesce(f.provider, ''),
       coalesce(f.code, ''), coalesce(f.detail, ''), coalesce(f.tries, n.tries),
       coalesce(f.first_at, n.created_at), coalesce(f.last_at, n.updated_at)
FROM notifications n LEFT JOIN failures f ON f.id = n.id
WHERE n.status IN ('failed', 'expired', 'cancelled', 'suppressed', 'undelivered');

-- Every row fulfils the condition. But a statement that finds rows by their ids does not state it,
-- and so cannot use this index, which an empty table makes look as good as the primary key: it
-- would read the whole index for each batch.
CREATE INDEX live_due ON live (queue, turn, class, due_at, id) WHERE turn >= 0;
CREATE INDEX live_expires ON live (expires_at);

DROP TABLE failures;
ALTER TABLE notifications
    DROP COLUMN updated_at, DROP COLUMN ready_at, DROP COLUMN due_at, DROP COLUMN published_at,
    DROP COLUMN published_by, DROP COLUMN claimed_by, DROP COLUMN claim, DROP COLUMN tries,
    DROP COLUMN deaths, DROP COLUMN rescues, DROP COLUMN is_retry, DROP COLUMN status,
    DROP COLUMN last_error;

-- Makes the partitions from yesterday to `ahead` days from now; returns how many days it made.
-- A partition is made aside and attached: that waits for no reader and stops no writer.
CREATE OR REPLACE FUNCTION ensure_days(ahead integer DEFAULT 7) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    today date := (now() AT TIME ZONE 'UTC')::date;
    day date;
    parent text;
    child text;
    made integer := 0;
BEGIN
    IF ahead NOT BETWEEN 0 AND 366 THEN
        RAISE EXCEPTION 'ahead is %, must be 0 to 366', ahead USING ERRCODE = '22023';
    END IF;
    FOR day IN SELECT today + n FROM generate_series(-1, ahead) AS n LOOP
        CONTINUE WHEN to_regclass('ends_' || to_char(day, 'YYYYMMDD')) IS NOT NULL;
        PERFORM pg_advisory_xact_lock(hashtext('notifier.days'));
        FOREACH parent IN ARRAY ARRAY['notifications', 'attempts', 'ends'] LOOP
            child := parent || '_' || to_char(day, 'YYYYMMDD');
            CONTINUE WHEN to_regclass(child) IS NOT NULL;
            EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', child, parent);
            EXECUTE format(
                'ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                parent, child, uuid_at(day_start(day)), uuid_at(day_start(day + 1)));
        END LOOP;
        made := made + 1;
    END LOOP;
    RETURN made;
END
$$;

-- Drops one day if all its notifications are final: 'dropped', 'kept' (some are not) or 'absent'.
-- Refuses days that are not yet over. Gives up after 200 ms of waiting for a lock (55P03).
CREATE OR REPLACE FUNCTION drop_day(day date) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout = '200ms' AS $$
DECLARE
    suffix text := '_' || to_char(day, 'YYYYMMDD');
    first uuid := uuid_at(day_start(day));
    beyond uuid := uuid_at(day_start(day + 1));
BEGIN
    IF day >= (now() AT TIME ZONE 'UTC')::date THEN
        RAISE EXCEPTION '% is not over yet', day USING ERRCODE = '22023';
    END IF;
    IF to_regclass('notifications' || suffix) IS NULL THEN
        RETURN 'absent';
    END IF;
    IF EXISTS (SELECT FROM live WHERE id >= first AND id < beyond) THEN
        RETURN 'kept';
    END IF;
    -- The parents first, as every other statement does: the other way round is a deadlock.
    LOCK TABLE ONLY notifications, ONLY attempts, ONLY ends IN ACCESS EXCLUSIVE MODE;
    IF EXISTS (SELECT FROM live WHERE id >= first AND id < beyond) THEN
        RETURN 'kept';
    END IF;
    EXECUTE format('DROP TABLE %I', 'notifications' || suffix);
    EXECUTE format('DROP TABLE IF EXISTS %I', 'attempts' || suffix);
    EXECUTE format('DROP TABLE IF EXISTS %I', 'ends' || suffix);
    RETURN 'dropped';
END
$$;
