-- Deletes old roll-ups of one kind of period, oldest first. $1 text: kind. $2 timestamptz: before when they began.
-- $3 text[], $4 timestamptz[]: plans with another time, and that. $5 timestamptz: the latest of all these times.
-- $6 bigint: how many at most. $7 date[]: days whose events are kept, and so their roll-ups. Answers how many. Held tenants
-- keep theirs.
-- Locks: the rows, in the order in which the roll-up locks them.
WITH old AS (
    SELECT metrics.tenant_id, metrics.period_start
    FROM metertrail.tenant_usage_metrics AS metrics
    LEFT JOIN metertrail.quota_tenants AS tenants ON tenants.tenant_id = metrics.tenant_id
    LEFT JOIN unnest($3::text[], $4::timestamptz[]) AS class (plan, instant) ON class.plan = tenants.plan
    WHERE metrics.period_type = $1
        AND metrics.period_start < $5
        AND metrics.period_start < coalesce(class.instant, $2)
        AND (metrics.period_start AT TIME ZONE 'UTC')::date <> ALL ($7)
        AND NOT EXISTS (SELECT FROM metertrail.usage_holds AS holds WHERE holds.tenant_id = metrics.tenant_id)
    ORDER BY metrics.period_start
    LIMIT $6
), locked AS (
    SELECT metrics.tenant_id, metrics.period_start
    FROM metertrail.tenant_usage_metrics AS metrics
    JOIN old ON old.tenant_id = metrics.tenant_id AND old.period_start = metrics.period_start
    WHERE metrics.period_type = $1
    ORDER BY metrics.tenant_id, metrics.period_start
    FOR UPDATE OF metrics
), gone AS (
    DELETE FROM metertrail.tenant_usage_metrics AS metrics
    USING locked
    WHERE metrics.tenant_id = locked.tenant_id
        AND metrics.period_type = $1
        AND metrics.period_start = locked.period_start
    RETURNING 1
)
SELECT count(*) FROM gone
