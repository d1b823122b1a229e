//! What usage costs: prices as data that say where they come from, and an honest `None` where nobody knows.

mod book;
#[cfg(feature = "genai-prices")]
mod cache;
#[cfg(feature = "genai-prices")]
mod catalogue;
#[cfg(feature = "genai-prices")]
mod decode;
#[cfg(feature = "genai-prices")]
mod extract;
mod own;
mod rate;
mod reported;
#[cfg(feature = "genai-prices")]
mod rule;
mod unit;

pub use self::book::{Price, PriceBook, Prices, Unpriced};
#[cfg(feature = "genai-prices")]
pub use self::catalogue::PriceCatalogue;
#[cfg(feature = "genai-prices")]
pub use self::extract::Extraction;
pub use self::own::{Markup, OwnPrice, OwnPriceBuilder};
pub use self::rate::Amounts;
pub use self::reported::ReportedUsage;
pub use self::unit::Unit;
