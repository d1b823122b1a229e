//! Mail.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use lettre::message::{Mailbox, MultiPart};
use lettre::transport::smtp::authentication::Credentials;
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};

use crate::alert::sink::AlertSink;
use crate::alert::{Incident, Notification};
use crate::{Error, ErrorKind, Result, TenantId};

/// One command of the conversation may take so long.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);

/// How a connection to a mail server is secured.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum EmailSecurity {
    /// TLS from the first byte, port 465.
    #[default]
    Tls,
    /// TLS after a plain greeting, port 587; a server that does not offer it is refused.
    StartTls,
    /// None, port 25: for a relay on the same machine. Without credentials only.
    Plain,
}

/// Sends notifications by mail, as text and as HTML, to fixed addresses and to those of the incident's tenant.
///
/// The `Message-ID` is the same at every attempt, by which a repeated message is known.
///
/// ```
/// use metertrail::alert::EmailSink;
///
/// let sink = EmailSink::builder("mail.example.org", "alerts@example.org")
///     .credentials("alerts", "a secret")
///     .to("ops@example.org")
///     .to_tenant(|tenant_id| vec![format!("admin@{tenant_id}.example.org")])
///     .build()?;
/// assert!(!format!("{sink:?}").contains("a secret"));
/// # Ok::<(), metertrail::Error>(())
/// ```
#[derive(Clone)]
pub struct EmailSink {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    host: String,
    from: Mailbox,
    to: Vec<Mailbox>,
    to_tenant: Option<TenantAddresses>,
}

/// The addresses of a tenant.
type TenantAddresses = Arc<dyn Fn(&TenantId) -> Vec<String> + Send + Sync>;

impl EmailSink {
    /// A sink that sends from an address over a mail server.
    pub fn builder(host: &str, from: &str) -> EmailSinkBuilder {
        EmailSinkBuilder {
            host: host.to_owned(),
            port: None,
            security: EmailSecurity::default(),
            credentials: None,
            from: from.to_owned(),
            to: Vec::new(),
            to_tenant: None,
        }
    }

    fn recipients(&self, incident: &Incident) -> Result<Vec<Mailbox>> {
        let mut all = self.to.clone();
        if let (Some(to_tenant), Some(tenant_id)) = (&self.to_tenant, &incident.tenant_id) {
            for address in to_tenant(tenant_id) {
                all.push(mailbox("to", &address)?);
            }
        }
        Ok(all)
    }

    fn message(&self, notification: &Notification, now: DateTime<Utc>) -> Result<Option<Message>> {
        let recipients = self.recipients(&notification.incident)?;
        if recipients.is_empty() {
            return Ok(None);
        }
        let domain = self.from.email.domain();
        let mut message = Message::builder()
            .message_id(Some(format!("<{}@{domain}>", notification.idempotency_id())))
            .date(SystemTime::from(now))
            .from(self.from.clone())
            .subject(notification.summary());
        for recipient in recipients {
            message = message.to(recipient);
        }
        let parts = MultiPart::alternative_plain_html(text(notification), html(notification));
        message
            .multipart(parts)
            .map(Some)
            .map_err(|error| Error::invalid("message", "cannot be written").with_source(error))
    }
}

#[async_trait]
impl AlertSink for EmailSink {
    async fn deliver(&self, notification: &Notification, now: DateTime<Utc>) -> Result<()> {
        let Some(message) = self.message(notification, now)? else {
            return Ok(());
        };
        match self.transport.send(message).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_permanent() => {
                Err(Error::invalid("message", "was refused by the mail server").with_source(error))
            }
            Err(error) => {
                let message = "the mail server did not take the message";
                Err(Error::new(ErrorKind::Unavailable, message).with_source(error))
            }
        }
    }
}

impl fmt::Debug for EmailSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmailSink")
            .field("host", &self.host)
            .field("to", &self.to.len())
            .finish_non_exhaustive()
    }
}

/// Settings of an [`EmailSink`].
#[derive(Clone)]
#[must_use]
pub struct EmailSinkBuilder {
    host: String,
    port: Option<u16>,
    security: EmailSecurity,
    credentials: Option<(String, String)>,
    from: String,
    to: Vec<String>,
    to_tenant: Option<TenantAddresses>,
}

impl EmailSinkBuilder {
    /// Another port than the usual one.
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// How the connection is secured; by TLS from the first byte by default.
    pub fn security(mut self, security: EmailSecurity) -> Self {
        self.security = security;
        self
    }

    /// A user and its password.
    pub fn credentials(mut self, user: &str, password: &str) -> Self {
        self.credentials = Some((user.to_owned(), password.to_owned()));
        self
    }

    /// Sends to this address, too.
    pub fn to(mut self, address: &str) -> Self {
        self.to.push(address.to_owned());
        self
    }

    /// Sends to the addresses of the incident's tenant, too, if it is about one.
    pub fn to_tenant(mut self, addresses: impl Fn(&TenantId) -> Vec<String> + Send + Sync + 'static) -> Self {
        self.to_tenant = Some(Arc::new(addresses));
        self
    }

    /// The sink.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) on `host`, on `from` or `to` if an address is none or there is nobody to send
    /// to, on `credentials` if they were sent in the clear.
    pub fn build(self) -> Result<EmailSink> {
        if self.security == EmailSecurity::Plain && self.credentials.is_some() {
            return Err(Error::invalid("credentials", "must not be sent without TLS"));
        }
        if self.to.is_empty() && self.to_tenant.is_none() {
            return Err(Error::invalid("to", "must be given"));
        }
        let refused = |error| Error::invalid("host", "cannot be used for TLS").with_source(error);
        let mut transport = match self.security {
            EmailSecurity::Tls => AsyncSmtpTransport::<Tokio1Executor>::relay(&self.host).map_err(refused)?,
            EmailSecurity::StartTls => {
                AsyncSmtpTransport::<Tokio1Executor>::starttls_relay(&self.host).map_err(refused)?
            }
            EmailSecurity::Plain => AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&self.host),
        };
        transport = transport.timeout(Some(COMMAND_TIMEOUT));
        if let Some(port) = self.port {
            transport = transport.port(port);
        }
        if let Some((user, password)) = self.credentials {
            transport = transport.credentials(Credentials::new(user, password));
        }
        Ok(EmailSink {
            transport: transport.build(),
            host: self.host,
            from: mailbox("from", &self.from)?,
            to: self.to.iter().map(|address| mailbox("to", address)).collect::<Result<_>>()?,
            to_tenant: self.to_tenant,
        })
    }
}

impl fmt::Debug for EmailSinkBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmailSinkBuilder").field("host", &self.host).finish_non_exhaustive()
    }
}

fn mailbox(field: &'static str, address: &str) -> Result<Mailbox> {
    address.parse().map_err(|error| Error::invalid(field, "is no address of mail").with_source(error))
}

/// The lines of a message: what, and its value.
fn lines(notification: &Notification) -> Vec<(&'static str, String)> {
    let incident = &notification.incident;
    let unit = &incident.unit;
    let optional = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    vec![
        ("State", notification.kind().to_string()),
        ("Severity", incident.severity.to_string()),
        ("Rule", incident.rule.to_string()),
        ("Tenant", optional(incident.tenant_id.as_ref().map(ToString::to_string))),
        ("Subject", optional(incident.subject.as_ref().map(ToString::to_string))),
        ("Value", format!("{} {unit}", incident.value.normalize())),
        ("Threshold", format!("{} {unit}", incident.threshold.normalize())),
        ("Opened", incident.opened_at.to_rfc3339()),
        ("Resolved", optional(incident.resolved_at.map(|at| at.to_rfc3339()))),
        ("Incident", incident.id.to_string()),
    ]
}

fn text(notification: &Notification) -> String {
    let lines = lines(notification).into_iter().map(|(name, value)| format!("{name}: {value}\n"));
    format!("{}\n\n{}", notification.summary(), lines.collect::<String>())
}

fn html(notification: &Notification) -> String {
    let row =
        |(name, value): (&str, String)| format!("<tr><th>{name}</th><td>{}</td></tr>\n", escaped(&value));
    let rows: String = lines(notification).into_iter().map(row).collect();
    format!(
        "<!DOCTYPE html>\n<html><body>\n<p>{}</p>\n<table>\n{rows}</table>\n</body></html>\n",
        escaped(&notification.summary())
    )
}

/// A text inside of HTML: names of tenants and quotas come from outside.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}
