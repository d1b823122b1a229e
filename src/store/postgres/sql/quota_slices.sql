-- Who holds how much of some limits of one tenant, settlements that are not yet folded taken into account.
-- $1 text: tenant. $2 text[], $3 text[], $4 timestamptz[]: quotas, kinds of window, starts of windows.
-- A statement of its own, to be run before usage is read: what an event settles between the two then counts twice for a
-- moment, and never not at all.
SELECT slices.quota, slices.window_type, slices.window_start, slices.holder_id, slices.granted,
    slices.granted - slices.returned - slices.settled - coalesce((
        SELECT sum(settlements.amount)
        FROM metertrail.quota_settlements AS settlements
        WHERE settlements.tenant_id = $1
            AND settlements.quota = slices.quota
            AND settlements.window_type = slices.window_type
            AND settlements.window_start = slices.window_start
            AND settlements.holder_id = slices.holder_id), 0)::bigint AS leased,
    slices.expires_at
FROM unnest($2::text[], $3::text[], $4::timestamptz[]) AS wanted (quota, window_type, window_start)
JOIN metertrail.quota_slices AS slices
    ON slices.tenant_id = $1
    AND slices.quota = wanted.quota
    AND slices.window_type = wanted.window_type
    AND slices.window_start = wanted.window_start
