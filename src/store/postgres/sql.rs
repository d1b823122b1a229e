//! The statements, one file each, and the types of their parameters.

macro_rules! statements {
    ($($name:ident = $file:literal;)*) => {
        $(pub(super) const $name: &str = include_str!(concat!("sql/", $file, ".sql"));)*
    };
}

statements! {
    APPEND_EVENTS = "append_events";
    BEGIN = "begin";
    CLAIM_IDEMPOTENCY_KEYS = "claim_idempotency_keys";
    COPY_EVENTS = "copy_events";
    COPY_IDEMPOTENCY_KEYS = "copy_idempotency_keys";
    COPY_JOURNAL = "copy_journal";
    CREATE_SCHEMA = "create_schema";
    ENSURE_USAGE_PARTITION = "ensure_usage_partition";
    EVENTS = "events";
    INSERT_MIGRATION = "insert_migration";
    LOCK_MIGRATIONS = "lock_migrations";
    MISSING_USAGE_PARTITIONS = "missing_usage_partitions";
    RELEASE_IDEMPOTENCY_KEYS = "release_idempotency_keys";
    ROLL_UP = "roll_up";
    SELECT_EVENTS_BY_ID = "select_events_by_id";
    SELECT_IDEMPOTENCY_KEYS = "select_idempotency_keys";
    SELECT_MIGRATIONS = "select_migrations";
    SUMMARY = "summary";
    TOP_CONSUMERS_BY_CALLS = "top_consumers_by_calls";
    TOP_CONSUMERS_BY_COST = "top_consumers_by_cost";
    TOP_CONSUMERS_BY_ERRORS = "top_consumers_by_errors";
    TOP_CONSUMERS_BY_MEASURE = "top_consumers_by_measure";
    TOP_CONSUMERS_BY_TOKENS = "top_consumers_by_tokens";
    USAGE = "usage";
}
