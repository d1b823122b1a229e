//! Signatures of webhooks, as Standard Webhooks has them.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::{Error, Result};

/// What a secret begins with when it is written.
const PREFIX: &str = "whsec_";
/// How long the key is, in bytes.
const BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// A secret that a webhook and its receiver share, as [Standard Webhooks](https://www.standardwebhooks.com) has it: `whsec_` and
/// 24 to 64 bytes in base64. It is shown by nothing.
///
/// ```
/// use metertrail::alert::WebhookSecret;
///
/// let secret = WebhookSecret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")?;
/// let signature = secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
/// assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
/// assert_eq!(format!("{secret:?}"), "WebhookSecret(..)");
/// # Ok::<(), metertrail::Error>(())
/// ```
#[derive(Clone)]
pub struct WebhookSecret(Vec<u8>);

impl WebhookSecret {
    /// Takes a secret as it is written, with or without its prefix.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `secret` if it is not base64, or of fewer than 24 or more than 64
    /// bytes.
    pub fn new(text: &str) -> Result<Self> {
        let refused = || Error::invalid("secret", "must be whsec_ and 24 to 64 bytes in base64");
        let key = STANDARD.decode(text.strip_prefix(PREFIX).unwrap_or(text)).map_err(|_| refused())?;
        if BYTES.contains(&key.len()) { Ok(Self(key)) } else { Err(refused()) }
    }

    /// The signature of a message: `v1,` and the HMAC-SHA256 of its id, the time in seconds since 1970 and its body.
    pub fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let digest = self.mac(id, timestamp, body).map(|mac| STANDARD.encode(mac.finalize().into_bytes()));
        format!("v1,{}", digest.unwrap_or_default())
    }

    /// Whether one of the signatures of a header, which spaces part, is of this secret; in constant time. That the timestamp is
    /// recent is for the caller to see.
    pub fn verifies(&self, id: &str, timestamp: i64, body: &[u8], header: &str) -> bool {
        header.split(' ').filter_map(|signature| signature.strip_prefix("v1,")).any(|signature| {
            let digest = STANDARD.decode(signature).ok();
            let mac = self.mac(id, timestamp, body);
            digest.zip(mac).is_some_and(|(digest, mac)| mac.verify_slice(&digest).is_ok())
        })
    }

    /// HMAC takes keys of any length, so there always is one.
    fn mac(&self, id: &str, timestamp: i64, body: &[u8]) -> Option<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).ok()?;
        mac.update(format!("{id}.{timestamp}.").as_bytes());
        mac.update(body);
        Some(mac)
    }
}

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookSecret(..)")
    }
}
