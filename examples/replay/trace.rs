//! A trace file: a header and one request a line, read strictly.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::ops::AddAssign;
use std::path::{Path, PathBuf};

use chrono::{DateTime, NaiveDateTime, Utc};
use metertrail::time::{TIME_MAX, TIME_MIN, truncated};
use metertrail::{Period, TimeRange, TokenClass, TokenUsage, Zone};
use serde::Serialize;

use crate::Result;

const HEADER: [&str; 3] = ["TIMESTAMP", "ContextTokens", "GeneratedTokens"];

/// One line.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) line: u64,
    pub(crate) at: DateTime<Utc>,
    pub(crate) tokens: TokenUsage,
}

/// The requests of a file, in its order. Nothing is skipped: what is not a request is an error that names its line.
#[derive(Debug)]
pub(crate) struct Trace {
    path: PathBuf,
    lines: std::io::Lines<BufReader<File>>,
    line: u64,
}

impl Trace {
    /// Opens a file and checks its header.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let mut this = Self { path: path.to_owned(), lines: BufReader::new(file).lines(), line: 1 };
        let header = this.lines.next().transpose().map_err(|error| this.wrong(error))?.unwrap_or_default();
        if header.trim_start_matches('\u{feff}').split(',').eq(HEADER) {
            return Ok(this);
        }
        Err(this.wrong(format!("the header must be {}, is {header:?}", HEADER.join(","))).into())
    }

    fn request(&self, line: &str) -> Result<Request> {
        let fields = line.split(',').collect::<Vec<_>>();
        let [at, input, output] = fields[..] else {
            return Err(match HEADER.get(fields.len()) {
                Some(missing) => format!("{missing} is missing: {line:?}"),
                None => format!("must have {} columns, has {}: {line:?}", HEADER.len(), fields.len()),
            }
            .into());
        };
        let tokens = TokenUsage::reported(tokens(HEADER[1], input)?, tokens(HEADER[2], output)?)?;
        Ok(Request { line: self.line, at: instant(at)?, tokens })
    }

    fn wrong(&self, what: impl Display) -> String {
        format!("{}:{}: {what}", self.path.display(), self.line)
    }
}

impl Iterator for Trace {
    type Item = Result<Request>;

    fn next(&mut self) -> Option<Self::Item> {
        let line = self.lines.next()?;
        self.line += 1;
        let request = line.map_err(Into::into).and_then(|line| self.request(&line));
        Some(request.map_err(|error| self.wrong(error).into()))
    }
}

fn instant(text: &str) -> Result<DateTime<Utc>> {
    let form = "%Y-%m-%d %H:%M:%S%.f";
    let at = NaiveDateTime::parse_from_str(text, form).map_err(|error| {
        format!("{} must be like 2023-11-16 18:15:46.6805900, is {text:?}: {error}", HEADER[0])
    })?;
    let at = truncated(at.and_utc());
    if (TIME_MIN..TIME_MAX).contains(&at) {
        return Ok(at);
    }
    Err(format!("{} must lie in {TIME_MIN:?} to {TIME_MAX:?}, is {text:?}", HEADER[0]).into())
}

fn tokens(column: &str, text: &str) -> Result<u64> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = if is_number { text.parse().ok() } else { None };
    number.ok_or_else(|| format!("{column} must be a whole number and not negative, is {text:?}").into())
}

/// What requests add up to.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub(crate) struct Totals {
    pub(crate) events: u64,
    pub(crate) input_tokens: u64,
    pub(crate) output_tokens: u64,
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.events += other.events;
        self.input_tokens += other.input_tokens;
        self.output_tokens += other.output_tokens;
    }
}

/// Totals of each hour of UTC that has any.
pub(crate) type Hours = BTreeMap<DateTime<Utc>, Totals>;

/// What a whole file says, hour by hour. An error means that nothing of it should be recorded.
pub(crate) fn hours_of(path: &Path) -> Result<Hours> {
    let mut hours = Hours::new();
    for request in Trace::open(path)? {
        add(&mut hours, &request?);
    }
    if let Some(range) = range_of(&hours) {
        Period::Hour.ranges(range, Zone::UTC).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(hours)
}

/// Counts a request in its hour.
pub(crate) fn add(hours: &mut Hours, request: &Request) {
    let [input_tokens, output_tokens] =
        [TokenClass::Input, TokenClass::Output].map(|class| request.tokens.get(class));
    let hour = Period::Hour.range_at(request.at, Zone::UTC).start();
    *hours.entry(hour).or_default() += Totals { events: 1, input_tokens, output_tokens };
}

/// From the first hour to the end of the last; none for a file without requests.
pub(crate) fn range_of(hours: &Hours) -> Option<TimeRange> {
    let (first, last) = (hours.first_key_value()?.0, hours.last_key_value()?.0);
    TimeRange::new(*first, Period::Hour.range_at(*last, Zone::UTC).end()).ok()
}

pub(crate) fn total_of(hours: &Hours) -> Totals {
    hours.values().fold(Totals::default(), |mut sum, totals| {
        sum += *totals;
        sum
    })
}
