-- Drops the partition of a day and closes the day. $1 text: task. $2 bigint: token. $3 date. $4 bigint, $5 numeric: what the
-- day must have. $6, $7 text: manifest of its archive and its digest. $8 timestamptz: now.
-- Locks: the table of events, against everybody; waits two seconds for it at most.
SELECT metertrail.drop_usage_day($1, $2, $3, $4, $5, $6, $7, $8)
