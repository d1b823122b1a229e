-- Adds differences of cost to rows of metrics of one tenant. $1 text: tenant. $2 text[], $3 timestamptz[]: kinds and starts of
-- periods. $4 numeric[], $5 bigint[], $6 numeric[]: what is added to the cost, to the number of events without a price, and to
-- what those count for. Run under lock_usage_metrics, in the transaction that changed the events: metrics and journal stay the
-- sum of the events.
-- Locks: the rows.
UPDATE metertrail.tenant_usage_metrics AS metrics
SET estimated_cost_usd = metrics.estimated_cost_usd + added.cost,
    unpriced_count = metrics.unpriced_count + added.unpriced,
    measures = CASE
        WHEN added.ceiling = 0 THEN metrics.measures
        ELSE metertrail.add_amounts(metrics.measures, jsonb_build_object('unpriced_ceiling_usd', added.ceiling::text))
    END
FROM unnest($2::text[], $3::timestamptz[], $4::numeric[], $5::bigint[], $6::numeric[])
    AS added (period_type, period_start, cost, unpriced, ceiling)
WHERE metrics.tenant_id = $1
    AND metrics.period_type = added.period_type
    AND metrics.period_start = added.period_start
