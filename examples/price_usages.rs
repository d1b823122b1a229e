//! Reads responses of providers, and prints what they used and what that costs: a JSON line for each.
//!
//! ```text
//! cargo run --example price_usages -- usages.json --prices genai_prices_v2.json --at 2026-08-21
//! ```
//!
//! The file is a JSON array of cases: `body` is the response, `extracted` names in `extractors` the providers (`provider_id`)
//! and shapes (`api_flavor`) to read it as. A case without `extracted` is read as every shape that fits. Further fields are
//! not looked at: what the file expects is for others to compare.
//!
//! # A line
//! | field | what |
//! |---|---|
//! | `case` | the position of the case in the file, from 0 |
//! | `provider`, `provider_id` | the provider, twice the same |
//! | `api_flavor` | the shape that the response was read as |
//! | `model` | the model that the response names, or null |
//! | `usage` | the usage as reported, by the names of genai-prices, without zeros: `input_tokens` has `cache_read_tokens` in it |
//! | `tokens` | the same by disjoint class; null if the usage contradicts itself |
//! | `input_price`, `output_price`, `total_price` | US dollars as decimal texts, not rounded; null if there is no price |
//! | `error` | why something above is null; null if nothing is |
//!
//! It exits with another status than zero if the file or the prices cannot be read. A response that cannot be read is a line
//! with an `error`.

use std::error::Error;
use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use chrono::{DateTime, NaiveDate, Utc};
use clap::Parser;
use metertrail::cost::{Amounts, Extraction, PriceCatalogue, ReportedUsage};
use metertrail::time::{Clock, SystemClock};
use metertrail::{Label, TokenUsage};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Reads usage from responses of providers and prices it.
#[derive(Debug, Parser)]
#[command(name = "price_usages")]
struct Arguments {
    /// The cases: a JSON array
    file: PathBuf,
    /// Prices and shapes in the form of genai-prices, version 2 [default: those that came with the crate]
    #[arg(long, value_name = "PRICES.json")]
    prices: Option<PathBuf>,
    /// Whose prices: a date (its noon, UTC) or an instant as in RFC 3339 [default: now]
    #[arg(long, value_name = "DATE", value_parser = instant)]
    at: Option<DateTime<Utc>>,
}

#[derive(Debug, Deserialize)]
struct Case {
    body: Value,
    extracted: Option<Vec<Expected>>,
}

#[derive(Debug, Deserialize)]
struct Expected {
    extractors: Vec<Shape>,
}

#[derive(Debug, Deserialize)]
struct Shape {
    provider_id: String,
    api_flavor: String,
}

/// One line of the output.
#[derive(Debug, Default, Serialize)]
struct Line<'a> {
    case: usize,
    provider: &'a str,
    provider_id: &'a str,
    api_flavor: &'a str,
    model: Option<Label>,
    usage: Option<ReportedUsage>,
    tokens: Option<TokenUsage>,
    input_price: Option<Decimal>,
    output_price: Option<Decimal>,
    total_price: Option<Decimal>,
    error: Option<String>,
}

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

fn main() -> ExitCode {
    match price_usages(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn price_usages(arguments: &Arguments) -> Result<()> {
    let read = |path: &PathBuf| fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
    let catalogue = match &arguments.prices {
        Some(path) => {
            PriceCatalogue::from_json(&read(path)?).map_err(|error| format!("{}: {error}", path.display()))?
        }
        None => PriceCatalogue::bundled()?,
    };
    let at = arguments.at.unwrap_or_else(|| SystemClock.now());
    let cases: Vec<Case> = serde_json::from_slice(&read(&arguments.file)?)
        .map_err(|error| format!("{}: {error}", arguments.file.display()))?;
    let mut out = BufWriter::new(io::stdout().lock());
    for (number, case) in cases.iter().enumerate() {
        match &case.extracted {
            Some(extracted) => {
                for Shape { provider_id, api_flavor } in extracted.iter().flat_map(|one| &one.extractors) {
                    let line = line(&catalogue, number, provider_id, api_flavor, &case.body, at);
                    writeln!(out, "{}", serde_json::to_string(&line)?)?;
                }
            }
            None => {
                for (provider, flavor) in catalogue.api_flavors() {
                    let line = line(&catalogue, number, provider, flavor, &case.body, at);
                    if line.usage.is_some() {
                        writeln!(out, "{}", serde_json::to_string(&line)?)?;
                    }
                }
            }
        }
    }
    Ok(out.flush()?)
}

fn line<'a>(
    catalogue: &PriceCatalogue,
    case: usize,
    provider: &'a str,
    api_flavor: &'a str,
    body: &Value,
    at: DateTime<Utc>,
) -> Line<'a> {
    let mut line = Line { case, provider, provider_id: provider, api_flavor, ..Line::default() };
    let mut errors = Vec::new();
    match catalogue.extract(provider, api_flavor, body) {
        Ok(extraction) => line.fill(catalogue, extraction, at, &mut errors),
        Err(error) => errors.push(error.to_string()),
    }
    line.error = (!errors.is_empty()).then(|| errors.join("; "));
    line
}

impl Line<'_> {
    fn fill(
        &mut self,
        catalogue: &PriceCatalogue,
        extraction: Extraction,
        at: DateTime<Utc>,
        errors: &mut Vec<String>,
    ) {
        match extraction.tokens() {
            Ok(tokens) => self.tokens = Some(tokens),
            Err(error) => errors.push(error.to_string()),
        }
        let priced = catalogue.price(&extraction, at).map_err(|unpriced| unpriced.to_string());
        let total = |amounts: Amounts| {
            amounts.total().map(|total| (amounts, total)).ok_or_else(|| "costs too much".to_owned())
        };
        match priced.and_then(total) {
            Ok((Amounts { input, output, .. }, total)) => {
                self.input_price = Some(input.normalize());
                self.output_price = Some(output.normalize());
                self.total_price = Some(total.normalize());
            }
            Err(reason) => errors.push(reason),
        }
        self.model = extraction.model;
        self.usage = Some(extraction.usage.without_zeros());
    }
}

fn instant(text: &str) -> std::result::Result<DateTime<Utc>, String> {
    if let Ok(date) = text.parse::<NaiveDate>() {
        return date.and_hms_opt(12, 0, 0).map(|noon| noon.and_utc()).ok_or_else(|| "has no noon".to_owned());
    }
    text.parse::<DateTime<Utc>>().map_err(|error| format!("neither a date nor an instant: {error}"))
}
