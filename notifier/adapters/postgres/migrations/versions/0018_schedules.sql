-- Notifications that are submitted again and again. Processes of the version before do not know the
-- table: they run no schedules.
--   digest        of cron, time_zone and notification
--   notification  the JSON document of a submit, without a tenant
--   needs         the fields of the notification
--   blobs         the hashes of its files
--   next_at       the instant that is next, or is not done yet; null: paused, or there is no more
--   held_until    until when a process has that instant
--   begun_at      since when it may have been submitted; null: it was not
--   last_at       the instant of last_notification
--   last_problem  the JSON document of why the last run was refused; null: it was not
CREATE TABLE schedules (
    id uuid NOT NULL PRIMARY KEY,
    tenant text COLLATE "C" NOT NULL,
    mode text NOT NULL,
    digest uuid NOT NULL,
    cron text NOT NULL,
    time_zone text NOT NULL,
    notification bytea NOT NULL,
    needs text[] NOT NULL,
    blobs bytea[] NOT NULL,
    note text NOT NULL,
    paused boolean NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    next_at timestamptz,
    held_until timestamptz,
    begun_at timestamptz,
    last_at timestamptz,
    last_notification uuid,
    last_problem text
) WITH (fillfactor = 70, vacuum_truncate = off);
CREATE UNIQUE INDEX schedules_same ON schedules (tenant, mode, digest);
CREATE INDEX schedules_due ON schedules (next_at) WHERE next_at IS NOT NULL;
