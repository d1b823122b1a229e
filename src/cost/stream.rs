//! Usage of answers that come in pieces.

use serde_json::{Map, Value};

use super::catalogue::PriceCatalogue;
use super::estimate::Estimator;
use super::extract::Extraction;
use crate::usage::{TokenClass, TokenUsage};
use crate::{Error, Result};

/// The longest event of a stream, in bytes; what is longer ends the reading.
const EVENT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Where providers put what belongs to the whole answer: beside the event, or in one of these.
const ENVELOPES: [&str; 5] = ["response", "message", "delta", "x_groq", "metadata"];
/// Types of events that end an answer.
const LAST_TYPES: [&str; 7] = [
    "message_stop",
    "message-end",
    "response.completed",
    "response.incomplete",
    "response.failed",
    "response.done",
    "messageStop",
];

/// Gathers the usage of one streamed answer from its server-sent events, in pieces of any size as they come.
///
/// Providers report it late (OpenAI in the last chunk), early and late (Anthropic: input first, output growing) or again and
/// again (Google): what comes later goes before what came earlier, field by field. A stream that is cut in the middle is never
/// free: what was reported stands, and what was seen of the answer is estimated; both are marked.
///
/// ```
/// use metertrail::cost::{Estimator, PriceCatalogue, StreamUsage};
/// use metertrail::{TokenClass, TokenSource};
///
/// let catalogue = PriceCatalogue::bundled()?;
/// let mut stream = StreamUsage::new(&catalogue, "anthropic", "default")?;
/// stream.push(b"data: {\"type\": \"message_start\", \"message\": {\"model\": \"claude-sonnet-4-5\", ")?;
/// stream.push(b"\"usage\": {\"input_tokens\": 25, \"output_tokens\": 1}}}\n\n")?;
/// stream.push(b"data: {\"type\": \"content_block_delta\", \"delta\": {\"text\": \"Good morning to you\"}}\n\n")?;
///
/// // The connection is cut here.
/// let cut = stream.finish(&Estimator::default(), None);
/// assert!(!cut.is_complete);
/// assert_eq!((cut.tokens.get(TokenClass::Input), cut.tokens.get(TokenClass::Output)), (25, 5));
/// assert_eq!(cut.tokens.source(), TokenSource::Estimated);
/// # Ok::<(), metertrail::Error>(())
/// ```
#[derive(Debug)]
pub struct StreamUsage<'c> {
    catalogue: &'c PriceCatalogue,
    provider: String,
    api_flavor: String,
    /// The keys of a document that have something to say about usage.
    keys: Vec<String>,
    /// Bytes of a line that has not ended.
    line: Vec<u8>,
    /// What the events said so far, as if it were one response.
    document: Map<String, Value>,
    text: String,
    has_ended: bool,
}

/// What a streamed answer used.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Streamed {
    /// Its tokens: as reported, or marked as estimated if it was cut or nothing was reported.
    pub tokens: TokenUsage,
    /// Whether its end was seen.
    pub is_complete: bool,
    /// What was reported, if it can be read; else why not.
    pub reported: Result<Extraction, String>,
}

impl<'c> StreamUsage<'c> {
    /// For an answer of one of the provider's shapes, as [`PriceCatalogue::extract`] names them.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `provider` or `api_flavor` if they are not known.
    pub fn new(catalogue: &'c PriceCatalogue, provider: &str, api_flavor: &str) -> Result<Self> {
        let (provider, extractor) = catalogue.extractor(provider, api_flavor)?;
        Ok(Self {
            catalogue,
            provider: provider.to_owned(),
            api_flavor: api_flavor.to_owned(),
            keys: extractor.first_keys().map(str::to_owned).collect(),
            line: Vec::new(),
            document: Map::new(),
            text: String::new(),
            has_ended: false,
        })
    }

    /// Takes in bytes of the stream, wherever they were cut.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `stream` if an event is no JSON or too long. What was read before
    /// stands, and later bytes may be pushed.
    pub fn push(&mut self, bytes: &[u8]) -> Result<()> {
        let mut result = Ok(());
        for byte in bytes {
            if !matches!(byte, b'\n' | b'\r') {
                if self.line.len() >= EVENT_BYTES_MAX {
                    self.line.clear();
                    let rule = format!("has an event of more than {EVENT_BYTES_MAX} bytes");
                    result = Err(Error::invalid("stream", rule));
                }
                self.line.push(*byte);
                continue;
            }
            let line = std::mem::take(&mut self.line);
            result = result.and(self.line(&line));
        }
        result
    }

    fn line(&mut self, line: &[u8]) -> Result<()> {
        let Some(data) = line.strip_prefix(b"data:").map(<[u8]>::trim_ascii) else { return Ok(()) };
        if data == b"[DONE]" {
            self.has_ended = true;
            return Ok(());
        }
        let event = serde_json::from_slice(data)
            .map_err(|error| Error::invalid("stream", format!("has an event that is not JSON: {error}")))?;
        self.push_event(&event);
        Ok(())
    }

    /// Takes in one event that is already parsed, for streams that are not server-sent events (Bedrock).
    pub fn push_event(&mut self, event: &Value) {
        let Value::Object(event) = event else { return };
        let parts = std::iter::once(event)
            .chain(ENVELOPES.iter().filter_map(|envelope| event.get(*envelope)?.as_object()));
        for part in parts {
            for key in &self.keys {
                if let Some(value) = part.get(key).filter(|value| !value.is_null()) {
                    merge(self.document.entry(key.clone()).or_insert(Value::Null), value);
                }
            }
            self.has_ended |= is_last(part);
            text_of(part, &mut self.text);
        }
    }

    /// What is known of the usage so far, for [`Operation::raise_estimate`](crate::Operation::raise_estimate).
    pub fn so_far(&self, estimator: &Estimator) -> TokenUsage {
        self.estimated(self.reported().as_ref().ok(), estimator, None)
    }

    /// The stream is over, or cut. If nothing was reported of the input, it is guessed from `input`, the text that was asked.
    pub fn finish(mut self, estimator: &Estimator, input: Option<&str>) -> Streamed {
        // The last line may lack its end.
        let line = std::mem::take(&mut self.line);
        let _ = self.line(&line);
        let reported = self.reported();
        let tokens = reported.as_ref().ok().map(Extraction::tokens).and_then(Result::ok);
        let tokens = match tokens {
            Some(tokens) if self.has_ended => tokens,
            _ => self.estimated(reported.as_ref().ok(), estimator, input),
        };
        let reported = reported.map_err(|error| error.to_string());
        Streamed { tokens, is_complete: self.has_ended, reported }
    }

    fn reported(&self) -> Result<Extraction> {
        let document = Value::Object(self.document.clone());
        self.catalogue.extract(&self.provider, &self.api_flavor, &document)
    }

    /// What was reported, and at least what was seen.
    fn estimated(
        &self,
        reported: Option<&Extraction>,
        estimator: &Estimator,
        input: Option<&str>,
    ) -> TokenUsage {
        let known = reported.map(Extraction::tokens).and_then(Result::ok).unwrap_or_default();
        let seen = estimator.count(&self.text);
        let answered = known.get(TokenClass::Output).max(seen);
        let asked = if known.total() == 0 { input.map_or(0, |input| estimator.count(input)) } else { 0 };
        let asked = known.get(TokenClass::Input).max(asked);
        let with =
            known.with(TokenClass::Output, answered).and_then(|all| all.with(TokenClass::Input, asked));
        with.unwrap_or(known).into_estimated()
    }
}

/// What is said later goes before what was said earlier, field by field.
fn merge(kept: &mut Value, later: &Value) {
    match (kept, later) {
        (Value::Object(kept), Value::Object(later)) => {
            for (key, value) in later.iter().filter(|(_, value)| !value.is_null()) {
                merge(kept.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (kept, later) => kept.clone_from(later),
    }
}

fn is_last(part: &Map<String, Value>) -> bool {
    let is_last_type = part.get("type").and_then(Value::as_str).is_some_and(|of| LAST_TYPES.contains(&of));
    let has_reason = |key| {
        part.get(key).and_then(Value::as_array).is_some_and(|items| {
            let is_set = |item: &Value, key| item.get(key).is_some_and(|reason| !reason.is_null());
            items.iter().any(|item| is_set(item, "finish_reason") || is_set(item, "finishReason"))
        })
    };
    is_last_type || part.contains_key("stopReason") || has_reason("choices") || has_reason("candidates")
}

/// The text that an event adds to the answer.
fn text_of(part: &Map<String, Value>, text: &mut String) {
    // What ended is told once more as a whole.
    if part.get("type").and_then(Value::as_str).is_some_and(|of| of.rsplit('.').next() == Some("done")) {
        return;
    }
    let mut add = |value: Option<&Value>| text.push_str(value.and_then(Value::as_str).unwrap_or_default());
    let items = |key: &str| part.get(key).and_then(Value::as_array).into_iter().flatten();
    add(part.get("delta"));
    add(part.get("text"));
    for choice in items("choices") {
        add(choice.pointer("/delta/content"));
        add(choice.pointer("/delta/reasoning_content"));
        add(choice.get("text"));
    }
    for candidate in items("candidates") {
        for piece in candidate.pointer("/content/parts").and_then(Value::as_array).into_iter().flatten() {
            add(piece.get("text"));
        }
    }
}
