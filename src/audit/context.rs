//! From where something was done.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::text::Label;
use crate::{Error, Result};

/// The longest user agent that is kept, in bytes; longer ones are cut.
pub const USER_AGENT_BYTES_MAX: usize = 512;

/// From where something was done. All of it is optional.
///
/// ```
/// use metertrail::audit::{AuditContext, ClientIp};
///
/// let context = AuditContext::new()
///     .ip(ClientIp::truncated("203.0.113.77".parse().unwrap()))
///     .user_agent("curl/8.5.0")
///     .request_id("r-1")?;
/// assert_eq!(context.ip.unwrap().to_string(), "203.0.113.0/24");
/// # Ok::<(), metertrail::Error>(())
/// ```
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct AuditContext {
    /// The client's address.
    pub ip: Option<ClientIp>,
    /// The client's program.
    pub user_agent: Option<UserAgent>,
    /// The request's id.
    pub request_id: Option<Label>,
    /// The trace that the request belongs to.
    pub trace_id: Option<Label>,
}

impl AuditContext {
    /// A context of which nothing is known.
    pub fn new() -> Self {
        Self::default()
    }

    /// The client's address.
    #[must_use]
    pub fn ip(mut self, ip: ClientIp) -> Self {
        self.ip = Some(ip);
        self
    }

    /// The client's program; cut to [`USER_AGENT_BYTES_MAX`] bytes.
    #[must_use]
    pub fn user_agent(mut self, text: impl AsRef<str>) -> Self {
        self.user_agent = UserAgent::new(text);
        self
    }

    /// The request's id.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `request_id`.
    pub fn request_id(mut self, id: impl AsRef<str>) -> Result<Self> {
        self.request_id = Some(Label::new("request_id", id)?);
        Ok(self)
    }

    /// The trace's id.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `trace_id`.
    pub fn trace_id(mut self, id: impl AsRef<str>) -> Result<Self> {
        self.trace_id = Some(Label::new("trace_id", id)?);
        Ok(self)
    }
}

/// The address of a client: its network, unless the host wants the whole address kept.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct ClientIp {
    address: IpAddr,
    prefix: u8,
}

impl ClientIp {
    /// The network of 24 bits (IPv4) or 48 bits (IPv6) that an address is in: not an address of one person. An IPv4 address
    /// that is written as IPv6 counts as IPv4.
    pub fn truncated(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => {
                let bits = u32::from(v4) & 0xffff_ff00;
                Self { address: Ipv4Addr::from(bits).into(), prefix: 24 }
            }
            IpAddr::V6(v6) => {
                let bits = u128::from(v6) >> 80 << 80;
                Self { address: Ipv6Addr::from(bits).into(), prefix: 48 }
            }
        }
    }

    /// The whole address. It is personal data that cannot be forgotten: prefer
    /// [`PersonalData`](crate::audit::PersonalData) for it.
    pub fn exact(address: IpAddr) -> Self {
        let address = address.to_canonical();
        Self { address, prefix: if address.is_ipv4() { 32 } else { 128 } }
    }

    /// Whether it is a network and no address.
    pub fn is_network(self) -> bool {
        !matches!(self.prefix, 32 | 128)
    }
}

/// The address if it is whole, else the network and its length: `203.0.113.0/24`.
impl fmt::Display for ClientIp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)?;
        match self.prefix {
            32 | 128 => Ok(()),
            prefix => write!(f, "/{prefix}"),
        }
    }
}

/// Reads what `Display` writes.
impl FromStr for ClientIp {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let malformed = || Error::invalid("ip", format!("is no address of this crate: {text:?}"));
        let (address, is_network) =
            text.split_once('/').map_or((text, false), |(address, _)| (address, true));
        let address = address.parse().map_err(|_| malformed())?;
        let ip = if is_network { Self::truncated(address) } else { Self::exact(address) };
        if ip.to_string() == text { Ok(ip) } else { Err(malformed()) }
    }
}

impl TryFrom<String> for ClientIp {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<ClientIp> for String {
    fn from(ip: ClientIp) -> Self {
        ip.to_string()
    }
}

/// What a client calls itself: at most 512 bytes, cut if longer, without control characters.
#[derive(Clone, Debug, Eq, Hash, PartialEq, Serialize)]
pub struct UserAgent(Box<str>);

impl UserAgent {
    /// Takes any text; `None` if there is nothing in it.
    pub fn new(text: impl AsRef<str>) -> Option<Self> {
        let text = text.as_ref();
        let fitting = text.chars().scan(0, |bytes, character| {
            *bytes += character.len_utf8();
            (*bytes <= USER_AGENT_BYTES_MAX).then_some(if character.is_control() { ' ' } else { character })
        });
        let clean: String = fitting.collect();
        let clean = clean.trim();
        (!clean.is_empty()).then(|| Self(clean.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UserAgent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
