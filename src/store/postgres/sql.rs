//! The statements, one file each, and the types of their parameters.

macro_rules! statements {
    ($($name:ident = $file:literal;)*) => {
        $(pub(super) const $name: &str = include_str!(concat!("sql/", $file, ".sql"));)*
    };
}

statements! {
    APPEND_EVENTS = "append_events";
    BEGIN = "begin";
    CAP_QUOTA_SLICES = "cap_quota_slices";
    CLAIM_IDEMPOTENCY_KEYS = "claim_idempotency_keys";
    COPY_EVENTS = "copy_events";
    COPY_IDEMPOTENCY_KEYS = "copy_idempotency_keys";
    COPY_JOURNAL = "copy_journal";
    COPY_QUOTA_SETTLEMENTS = "copy_quota_settlements";
    CREATE_SCHEMA = "create_schema";
    DELETE_USAGE_METRICS = "delete_usage_metrics";
    DETACHED_USAGE_DAYS = "detached_usage_days";
    DRIFTING_QUOTA_SLICES = "drifting_quota_slices";
    ENSURE_USAGE_PARTITION = "ensure_usage_partition";
    EVENTS = "events";
    GRANT_QUOTA_SLICES = "grant_quota_slices";
    INSERT_MIGRATION = "insert_migration";
    LOCK_MIGRATIONS = "lock_migrations";
    LOCK_QUOTAS = "lock_quotas";
    LOCK_USAGE_METRICS = "lock_usage_metrics";
    MISSING_USAGE_PARTITIONS = "missing_usage_partitions";
    PUT_QUOTA_OVERRIDE = "put_quota_override";
    PUT_QUOTA_PLAN = "put_quota_plan";
    QUOTA_CHANGES = "quota_changes";
    QUOTA_OVERRIDES = "quota_overrides";
    QUOTA_PLANS = "quota_plans";
    QUOTA_REVISIONS = "quota_revisions";
    QUOTA_SLICES = "quota_slices";
    QUOTA_TENANT = "quota_tenant";
    QUOTA_USAGE = "quota_usage";
    RELEASE_IDEMPOTENCY_KEYS = "release_idempotency_keys";
    REMOVE_QUOTA_OVERRIDE = "remove_quota_override";
    RENEW_QUOTA_SLICES = "renew_quota_slices";
    RETURN_QUOTA_SLICES = "return_quota_slices";
    REWRITE_USAGE_METRICS = "rewrite_usage_metrics";
    ROLL_UP = "roll_up";
    SELECT_EVENTS_BY_ID = "select_events_by_id";
    SELECT_IDEMPOTENCY_KEYS = "select_idempotency_keys";
    SELECT_MIGRATIONS = "select_migrations";
    SET_QUOTA_PLAN = "set_quota_plan";
    SET_QUOTA_ZONE = "set_quota_zone";
    SUMMARY = "summary";
    TOP_CONSUMERS_BY_CALLS = "top_consumers_by_calls";
    TOP_CONSUMERS_BY_COST = "top_consumers_by_cost";
    TOP_CONSUMERS_BY_ERRORS = "top_consumers_by_errors";
    TOP_CONSUMERS_BY_MEASURE = "top_consumers_by_measure";
    TOP_CONSUMERS_BY_TOKENS = "top_consumers_by_tokens";
    TOUCH_QUOTA_TENANT = "touch_quota_tenant";
    USAGE = "usage";
    USAGE_BOOKS = "usage_books";
    USAGE_OF_EVENTS = "usage_of_events";
    USAGE_TENANTS = "usage_tenants";
}
