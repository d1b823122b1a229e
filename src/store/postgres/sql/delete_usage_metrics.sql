-- Removes rows of metrics of one tenant. $1 text: tenant. $2 text[], $3 timestamptz[]: kinds and starts of periods. Run under
-- lock_usage_metrics.
-- Locks: the rows.
DELETE FROM metertrail.tenant_usage_metrics AS metrics
USING unnest($2::text[], $3::timestamptz[]) AS period (period_type, period_start)
WHERE metrics.tenant_id = $1
    AND metrics.period_type = period.period_type
    AND metrics.period_start = period.period_start
