-- Aggregates the days of a range anew from their events. $1, $2 timestamptz. Answers how many rows it wrote.
-- Locks: the metrics, against roll-ups; readers and appends go on.
SELECT metertrail.aggregate_usage_metrics($1, $2)
