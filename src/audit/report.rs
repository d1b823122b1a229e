//! What happened to a tenant in a range, counted, and how sure one can be of it.

use std::collections::BTreeMap;
use std::fmt::Write;

use chrono::{DateTime, NaiveDate, Utc};
use serde::Serialize;

use crate::audit::{AuditEvent, AuditResult, Checkpoint, EpochRecord, StoredEpoch};
use crate::time::TimeRange;
use crate::{Error, ErrorKind, Result, TenantId};

/// What happened to a tenant in a range, counted. Sampled events count for as many as they stand for.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct AuditReport {
    /// Whose trail it is of.
    pub tenant_id: TenantId,
    /// Of which range.
    pub range: TimeRange,
    /// When the report was made.
    pub made_at: DateTime<Utc>,
    /// How often things happened.
    pub total: u64,
    /// How often they went well.
    pub successes: u64,
    /// How often they failed.
    pub failures: u64,
    /// How often they were denied.
    pub denials: u64,
    /// By type.
    pub by_type: BTreeMap<String, u64>,
    /// By actor, written as `kind:id`; a colon in the kind is `%3A` and a percent sign there `%25`.
    pub by_actor: BTreeMap<String, u64>,
    /// By day of UTC.
    pub by_day: BTreeMap<NaiveDate, u64>,
    /// When the first of them happened.
    pub first: Option<DateTime<Utc>>,
    /// When the last of them happened.
    pub last: Option<DateTime<Utc>>,
    /// How sure one can be of it.
    pub integrity: IntegrityStatement,
}

/// How sure one can be of a report.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct IntegrityStatement {
    /// The number of the latest epoch of the whole trail.
    pub epoch: Option<u64>,
    /// When it was sealed. What happened later is not sealed yet.
    pub sealed_at: Option<DateTime<Utc>>,
    /// Its checkpoint, as a signed note.
    pub checkpoint: Option<String>,
    /// Whether the checkpoint has a signature. Whether it is a good one is for a verifier to say.
    pub is_signed: bool,
    /// What a verification found, if there was one: the number of findings.
    pub findings: Option<u64>,
    /// When that verification was.
    pub verified_at: Option<DateTime<Utc>>,
}

impl AuditReport {
    pub(crate) fn new(tenant_id: TenantId, range: TimeRange, made_at: DateTime<Utc>) -> Self {
        Self {
            tenant_id,
            range,
            made_at,
            total: 0,
            successes: 0,
            failures: 0,
            denials: 0,
            by_type: BTreeMap::new(),
            by_actor: BTreeMap::new(),
            by_day: BTreeMap::new(),
            first: None,
            last: None,
            integrity: IntegrityStatement::default(),
        }
    }

    pub(crate) fn add(&mut self, event: &AuditEvent) {
        let count = u64::from(event.represents);
        self.total += count;
        match event.result {
            AuditResult::Success => self.successes += count,
            AuditResult::Failure => self.failures += count,
            AuditResult::Denied => self.denials += count,
        }
        *self.by_type.entry(event.event_type.to_string()).or_default() += count;
        let kind = event.actor.kind.as_str().replace('%', "%25").replace(':', "%3A");
        let actor = format!("{kind}:{}", event.actor.id);
        *self.by_actor.entry(actor).or_default() += count;
        let at = event.occurred_at();
        *self.by_day.entry(at.date_naive()).or_default() += count;
        self.first = Some(self.first.map_or(at, |first| first.min(at)));
        self.last = Some(self.last.map_or(at, |last| last.max(at)));
    }

    pub(crate) fn set_sealed(&mut self, epoch: Option<&StoredEpoch>) -> Result<()> {
        if let Some(epoch) = epoch {
            self.integrity.epoch = Some(epoch.number);
            self.integrity.sealed_at = Some(EpochRecord::parse(&epoch.record)?.sealed_at);
            self.integrity.is_signed = epoch.checkpoint.parse::<Checkpoint>()?.is_signed();
            self.integrity.checkpoint = Some(epoch.checkpoint.clone());
        }
        Ok(())
    }

    /// The same report with what a verification found.
    #[must_use]
    pub fn with_verification(mut self, findings: u64, verified_at: DateTime<Utc>) -> Self {
        self.integrity.findings = Some(findings);
        self.integrity.verified_at = Some(verified_at);
        self
    }

    /// The report as JSON.
    ///
    /// # Errors
    /// [`Misuse`](ErrorKind::Misuse) if it cannot be written, which does not happen.
    pub fn to_json(&self) -> Result<String> {
        serde_json::to_string_pretty(self).map_err(|error| {
            Error::new(ErrorKind::Misuse, "the report cannot be written as JSON").with_source(error)
        })
    }

    /// The report as CSV (RFC 4180): section, name, value. No cell is taken for a formula by a spreadsheet.
    pub fn to_csv(&self) -> String {
        let mut csv = String::from("section,name,value\r\n");
        for (section, name, value) in self.rows() {
            let cells = [section, &name, &value].map(csv_cell);
            csv.push_str(&cells.join(","));
            csv.push_str("\r\n");
        }
        csv
    }

    /// The report as a page to print, which loads nothing and runs nothing.
    pub fn to_html(&self) -> String {
        let title = html_text(&format!("Audit report: {}", self.tenant_id));
        let mut html = format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>{title}</title>\n<style>body \
             {{ font-family: sans-serif; margin: 2em }} table {{ border-collapse: collapse }} td, th {{ border: 1px solid \
             #999; padding: 0.2em 0.6em; text-align: left }}</style>\n</head>\n<body>\n<h1>{title}</h1>\n"
        );
        let rows = self.rows();
        for section in rows.chunk_by(|a, b| a.0 == b.0) {
            let name = section.first().map_or("", |(section, _, _)| section);
            // Writing to a String cannot fail.
            let _ = write!(html, "<h2>{}</h2>\n<table>\n", html_text(name));
            for (_, name, value) in section {
                let _ = writeln!(html, "<tr><th>{}</th><td>{}</td></tr>", html_text(name), html_text(value));
            }
            html.push_str("</table>\n");
        }
        html.push_str("</body>\n</html>\n");
        html
    }

    fn rows(&self) -> Vec<(&'static str, String, String)> {
        let time =
            |instant: Option<DateTime<Utc>>| instant.map_or(String::new(), |instant| instant.to_rfc3339());
        let mut rows = vec![
            ("summary", "tenant".to_owned(), self.tenant_id.to_string()),
            ("summary", "range".to_owned(), self.range.to_string()),
            ("summary", "made at".to_owned(), self.made_at.to_rfc3339()),
            ("summary", "total".to_owned(), self.total.to_string()),
            ("summary", "successes".to_owned(), self.successes.to_string()),
            ("summary", "failures".to_owned(), self.failures.to_string()),
            ("summary", "denials".to_owned(), self.denials.to_string()),
            ("summary", "first".to_owned(), time(self.first)),
            ("summary", "last".to_owned(), time(self.last)),
        ];
        rows.extend(self.by_type.iter().map(|(name, count)| ("by type", name.clone(), count.to_string())));
        rows.extend(self.by_actor.iter().map(|(name, count)| ("by actor", name.clone(), count.to_string())));
        rows.extend(self.by_day.iter().map(|(day, count)| ("by day", day.to_string(), count.to_string())));
        let integrity = &self.integrity;
        rows.extend([
            ("integrity", "epoch".to_owned(), integrity.epoch.map_or("none".to_owned(), |n| n.to_string())),
            ("integrity", "sealed at".to_owned(), time(integrity.sealed_at)),
            ("integrity", "signed".to_owned(), integrity.is_signed.to_string()),
            ("integrity", "checkpoint".to_owned(), integrity.checkpoint.clone().unwrap_or_default()),
            (
                "integrity",
                "findings".to_owned(),
                integrity.findings.map_or("not verified".to_owned(), |findings| findings.to_string()),
            ),
            ("integrity", "verified at".to_owned(), time(integrity.verified_at)),
        ]);
        rows
    }
}

/// A quoted cell. What a spreadsheet would take for a formula gets an apostrophe before it (OWASP, CSV injection).
pub(crate) fn csv_cell(text: &str) -> String {
    let is_formula = text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '|', '%']);
    let guard = if is_formula { "'" } else { "" };
    format!("\"{guard}{}\"", text.replace('"', "\"\""))
}

fn html_text(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            other => html.push(other),
        }
    }
    html
}
