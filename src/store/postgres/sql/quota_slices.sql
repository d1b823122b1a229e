-- Who holds how much of some limits of one tenant. $1 text: tenant. $2 text[], $3 text[], $4 timestamptz[], $5 timestamptz[]:
-- quotas, kinds, starts and ends of windows.
-- A statement of its own, to be run before usage is read: what an event settles between the two then counts twice for a
-- moment, and never not at all.
SELECT "position", is_the_window, holder_id, granted, leased, expires_at FROM metertrail.quota_leases($1, $2, $3, $4, $5)
