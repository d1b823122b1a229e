-- Claims a step of a task. $1 text: task. $2, $3, $4 timestamptz: due, now, end of the lease. $5 text: who.
-- Guarantee: of any number of callers one is granted it, with a token greater than any before. Locks: the task's row.
SELECT outcome, run_token, run_attempt, success_due_at, wait_until
FROM metertrail.claim_upkeep_run($1, $2, $3, $4, $5)
