-- Notes how a run ended. $1 text: task. $2 bigint: token. $3 text: status. $4 timestamptz: now. $5 bigint: rows.
-- $6 text: error. $7 timestamptz: when to try again. Answers whether the task is held under the token. Locks: its row.
SELECT metertrail.finish_upkeep_run($1, $2, $3, $4, $5, $6, $7)
