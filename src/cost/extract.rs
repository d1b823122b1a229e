//! Usage from the responses of providers, by the shapes that genai-prices describes.

use rust_decimal::Decimal;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::reported::ReportedUsage;
use super::rule::{Name, Rule};
use super::unit::Unit;
use crate::text::Label;
use crate::usage::{Cost, Measures, TokenUsage};
use crate::{Error, Result};

/// What a response says of its usage.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Extraction {
    /// The provider, by its id in the price data.
    pub provider: Label,
    /// The shape that the response was read as.
    pub api_flavor: String,
    /// The model that the response names.
    pub model: Option<Label>,
    /// Its usage as it is reported.
    pub usage: ReportedUsage,
    /// What the provider says that the call cost, in US dollars, where it says so (`OpenRouter`).
    pub reported_cost: Option<Cost>,
}

impl Extraction {
    /// The tokens by disjoint class.
    ///
    /// # Errors
    /// As [`ReportedUsage::tokens`].
    pub fn tokens(&self) -> Result<TokenUsage> {
        self.usage.tokens()
    }

    /// What has a price beyond the classes of tokens.
    ///
    /// # Errors
    /// As [`ReportedUsage::measures`].
    pub fn measures(&self) -> Result<Measures> {
        self.usage.measures()
    }
}

/// How the responses of one interface of a provider are read.
#[derive(Debug, Deserialize)]
pub(super) struct Extractor {
    #[serde(default = "default_flavor")]
    pub(super) api_flavor: String,
    root: Steps,
    #[serde(default = "default_model_path")]
    model_path: Steps,
    mappings: Vec<Mapping>,
}

#[derive(Debug, Deserialize)]
struct Mapping {
    path: Steps,
    dest: String,
    #[serde(default)]
    required: bool,
}

/// A way into a document: one key, or several steps.
#[derive(Debug, Deserialize)]
#[serde(from = "WireSteps")]
struct Steps(Vec<Step>);

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Step {
    Key(String),
    /// The first item of a list whose field matches.
    Item {
        field: String,
        #[serde(rename = "match")]
        rule: Rule,
    },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum WireSteps {
    Key(String),
    Steps(Vec<Step>),
}

impl From<WireSteps> for Steps {
    fn from(wire: WireSteps) -> Self {
        match wire {
            WireSteps::Key(key) => Self(vec![Step::Key(key)]),
            WireSteps::Steps(steps) => Self(steps),
        }
    }
}

fn default_flavor() -> String {
    "default".to_owned()
}

fn default_model_path() -> Steps {
    Steps(vec![Step::Key("model".to_owned())])
}

impl Extractor {
    /// The keys of a document that it looks at first: of the usage, and of the model.
    pub(super) fn first_keys(&self) -> impl Iterator<Item = &str> {
        [&self.root, &self.model_path].into_iter().filter_map(|steps| match steps.0.first() {
            Some(Step::Key(key)) => Some(key.as_str()),
            _ => None,
        })
    }

    /// Reads a response.
    pub(super) fn extract(&self, provider: &str, response: &Value) -> Result<Extraction> {
        let Value::Object(document) = response else {
            return Err(Error::invalid("response", format!("must be an object, is {}", kind_of(response))));
        };
        let usage = self.root.find(document).map_err(|place| missing(&[&self.root], &place))?;
        let Value::Object(usage) = usage else {
            return Err(refused(&[&self.root], format!("must be an object, is {}", kind_of(usage))));
        };
        let model = self.model_path.find(document).ok().and_then(Value::as_str).map(str::trim);
        Ok(Extraction {
            provider: Label::new("provider", provider)?,
            api_flavor: self.api_flavor.clone(),
            model: model.filter(|name| !name.is_empty()).map(|name| Label::new("model", name)).transpose()?,
            usage: self.usage(usage)?,
            reported_cost: reported_cost(provider, usage)?,
        })
    }

    fn usage(&self, document: &Map<String, Value>) -> Result<ReportedUsage> {
        let mut usage = ReportedUsage::default();
        let mut knows_any = false;
        for mapping in &self.mappings {
            // Newer data may count what nobody knows yet.
            let Ok(unit) = mapping.dest.parse::<Unit>() else { continue };
            knows_any = true;
            let place = [&self.root, &mapping.path];
            let value = match mapping.path.find(document) {
                Ok(value) => value,
                Err(step) if mapping.required => return Err(missing(&place, &step)),
                Err(_) => continue,
            };
            match value {
                Value::Number(number) => {
                    let amount = decimal(&number.to_string());
                    let amount = amount.ok_or_else(|| refused(&place, format!("is too large: {number}")))?;
                    if amount < Decimal::ZERO {
                        return Err(refused(&place, format!("must not be negative, is {number}")));
                    }
                    usage.add(unit, amount)?;
                }
                Value::Null | Value::Object(_) | Value::Array(_) if !mapping.required => {}
                other => {
                    return Err(refused(&place, format!("must be a number, is {}", kind_of(other))));
                }
            }
        }
        if knows_any && usage.is_empty() {
            return Err(refused(&[&self.root], "has no usage"));
        }
        Ok(usage)
    }
}

impl Steps {
    /// What it leads to, or how far it leads.
    fn find<'a>(&self, document: &'a Map<String, Value>) -> std::result::Result<&'a Value, String> {
        let mut found: Option<&'a Value> = None;
        for (position, step) in self.0.iter().enumerate() {
            let so_far = || Self::written(&self.0[..=position]);
            let next = match (step, found) {
                (Step::Key(key), None) => document.get(key),
                (Step::Key(key), Some(Value::Object(map))) => map.get(key),
                (Step::Item { field, rule }, Some(Value::Array(items))) => items.iter().find(|item| {
                    let text = item.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
                    text.is_some_and(|text| rule.matches(&Name::new(text)))
                }),
                _ => None,
            };
            found = Some(next.ok_or_else(so_far)?);
        }
        found.ok_or_else(|| "nothing".to_owned())
    }

    fn written(steps: &[Step]) -> String {
        let name = |step: &Step| match step {
            Step::Key(key) => key.clone(),
            Step::Item { field, .. } => format!("[{field}]"),
        };
        steps.iter().map(name).collect::<Vec<_>>().join(".")
    }
}

/// `OpenRouter` says what a call cost, unless the caller paid the model's provider with a key of its own.
fn reported_cost(provider: &str, usage: &Map<String, Value>) -> Result<Option<Cost>> {
    if provider != "openrouter" || usage.get("is_byok").and_then(Value::as_bool) == Some(true) {
        return Ok(None);
    }
    match usage.get("cost") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Number(cost)) => {
            let unreadable = || Error::invalid("usage.cost", format!("is not an amount of money: {cost}"));
            let amount = decimal(&cost.to_string()).ok_or_else(unreadable)?;
            Cost::usd(amount.round_dp(crate::usage::COST_SCALE_MAX)).map(Some)
        }
        Some(other) => Err(Error::invalid("usage.cost", format!("must be a number, is {}", kind_of(other)))),
    }
}

/// A number as it is written: `1.5e-7` too.
fn decimal(text: &str) -> Option<Decimal> {
    if text.contains(['e', 'E']) {
        Decimal::from_scientific(text).ok()
    } else {
        Decimal::from_str_exact(text).ok()
    }
}

fn missing(place: &[&Steps], so_far: &str) -> Error {
    refused(place, format!("is missing, nothing is at {so_far}"))
}

fn refused(place: &[&Steps], rule: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    let place: Vec<String> = place.iter().map(|steps| Steps::written(&steps.0)).collect();
    Error::invalid(format!("response.{}", place.join(".")), rule)
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
