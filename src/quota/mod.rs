//! Limits: what a tenant may use, admitted at the speed of memory and never past a hard limit.

mod allowance;
mod cell;
mod cells;
mod core;
mod decision;
mod enforcer;
mod explain;
mod hold;
mod keeper;
mod kind;
mod limit;
mod plan;
mod priced;
mod reconcile;
mod resolve;
mod rounds;
mod slice;
mod slot;
mod take;
mod window;

pub use self::decision::{Decision, LimitSource, LimitView, Retry, Verdict};
pub use self::enforcer::{QuotaEnforcer, QuotaEnforcerBuilder, QuotaStatus, TenantHandle};
pub(crate) use self::hold::Settling;
pub use self::hold::{Hold, HoldRef};
pub(crate) use self::keeper::Keeper;
pub use self::kind::{COST_UNITS_PER_USD, Quota};
pub use self::limit::{Allowed, Enforcement, LIMIT_AMOUNT_MAX, Limit, WhenUnavailable, WhenUnpriced};
pub use self::plan::{Catalogue, LIMITS_PER_PLAN_MAX, Override, Plan, TenantQuotas};
pub use self::reconcile::{
    DRIFTS_LISTED_MAX, Drift, RECONCILE_DAYS_MAX, Reconcile, Reconciliation, SliceName,
};
pub use self::slice::{
    AcquireRequest, Granted, HolderId, LimitKey, Returned, Settlement, SliceRequest, Standing,
};
pub use self::window::Window;
