//! What usage costs: prices as data that say where they come from, and an honest `None` where nobody knows.

mod book;
#[cfg(feature = "genai-prices")]
mod cache;
#[cfg(feature = "genai-prices")]
mod catalogue;
mod change;
#[cfg(feature = "genai-prices")]
mod decode;
mod estimate;
#[cfg(feature = "genai-prices")]
mod extract;
#[cfg(feature = "genai-prices")]
mod markup;
mod own;
mod rate;
mod reported;
mod reprice;
#[cfg(feature = "genai-prices")]
mod rule;
mod share;
#[cfg(feature = "genai-prices")]
mod stream;
mod unit;

pub use self::book::{CostEstimate, Price, PriceBook, Prices, Unpriced};
#[cfg(feature = "genai-prices")]
pub use self::catalogue::PriceCatalogue;
pub use self::change::CostChange;
pub use self::estimate::Estimator;
#[cfg(feature = "genai-prices")]
pub use self::extract::Extraction;
#[cfg(feature = "genai-prices")]
pub use self::markup::Markup;
pub use self::own::{OwnPrice, OwnPriceBuilder};
pub use self::rate::Amounts;
pub use self::reported::ReportedUsage;
pub use self::reprice::{ModelRepricing, Reprice, Repricing, reprice};
pub use self::share::{COST_SHARES_MAX, CostBy, CostShare, CostSharesQuery};
#[cfg(feature = "genai-prices")]
pub use self::stream::{StreamUsage, Streamed};
pub use self::unit::Unit;
