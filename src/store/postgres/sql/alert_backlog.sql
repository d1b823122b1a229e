-- The start of the earliest period of which something is not yet rolled up. A cross-tenant statement.
SELECT min(period_start) AS oldest
FROM metertrail.usage_journal
