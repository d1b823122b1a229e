-- Deletes records of old runs; the latest of a task stays. $1 timestamptz: ended before. $2 bigint: how many at most.
WITH old AS (
    SELECT runs.task, runs.token
    FROM metertrail.upkeep_runs AS runs
    JOIN metertrail.upkeep_tasks AS tasks ON tasks.task = runs.task
    WHERE runs.finished_at < $1 AND runs.token < tasks.token
    LIMIT $2
), gone AS (
    DELETE FROM metertrail.upkeep_runs AS runs
    USING old
    WHERE runs.task = old.task AND runs.token = old.token
    RETURNING 1
)
SELECT count(*) FROM gone
