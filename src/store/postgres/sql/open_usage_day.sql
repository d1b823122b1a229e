-- Makes the partition of a closed day again of what was staged. $1 text: task. $2 bigint: token. $3 date.
-- $4 timestamptz: until when it stays. Locks: the closed day; the table of events only as attaching a partition does.
SELECT metertrail.open_usage_day($1, $2, $3, $4)
