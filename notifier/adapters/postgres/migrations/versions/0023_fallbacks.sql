-- Notifications that are submitted if another one is not sent. Processes of the version before do not
-- know the table: they neither accept fallbacks nor submit any.
--   id            the first notification
--   after_s       seconds from its send_at, or its acceptance, to `at`
--   channel       that of the second one, as it was asked for
--   unless        what makes the second one needless: that the first one is sent, or delivered
--   at            when the second one is submitted unless the first one is that
--   look_at       when a process looks at the first one next; null: it is done
--   begun_at      since when the second one may have been submitted; null: it was not
--   notification  the second one; null: none was submitted
--   submit        the JSON document of its submit, without a tenant; null: it is done
--   needs         the fields of this document
CREATE TABLE fallbacks (
    id uuid NOT NULL PRIMARY KEY,
    after_s double precision NOT NULL,
    channel text NOT NULL,
    unless text NOT NULL,
    at timestamptz NOT NULL,
    look_at timestamptz,
    begun_at timestamptz,
    notification uuid,
    submit bytea,
    needs text[] NOT NULL
) WITH (fillfactor = 70, vacuum_truncate = off);
CREATE INDEX fallbacks_look ON fallbacks (look_at) WHERE look_at IS NOT NULL;
CREATE INDEX fallbacks_notification ON fallbacks (notification) WHERE notification IS NOT NULL;
