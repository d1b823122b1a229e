-- Locks rows of metrics of one tenant until the end of the transaction; makes those that are missing, of zeros.
-- $1 text: tenant. $2 text[], $3 timestamptz[]: kinds and starts of periods.
-- Guarantee: from here on no roll-up changes these periods. One that wants to waits, also where there was no row, and then
-- adds to what this transaction leaves; if that is no row, it makes one.
-- Locks: the rows, in the order in which the roll-up locks them. It waits for a roll-up that has one, which itself waits for
-- nobody but those who have a row further on.
INSERT INTO metertrail.tenant_usage_metrics AS metrics (tenant_id, period_type, period_start)
SELECT $1, period_type, period_start
FROM unnest($2::text[], $3::timestamptz[]) AS period (period_type, period_start)
ORDER BY period_type, period_start
ON CONFLICT (tenant_id, period_type, period_start) DO UPDATE SET quota_limit = metrics.quota_limit
