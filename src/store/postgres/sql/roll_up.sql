-- Folds journal rows into the metrics. $1 bigint: about how many at most. Answers how many it folded.
-- Locks: the journal rows, then the metrics rows in the order of their keys.
SELECT metertrail.aggregate_usage_metrics($1)
