//! Which addresses a sink may connect to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{Error, Result};

/// Which addresses a sink may connect to: public ones, and those that are allowed besides.
///
/// Not public are loopback, private, shared, link-local (where clouds have their metadata), multicast, reserved and
/// documentation addresses, by the special-purpose registries of IANA
/// ([IPv4](https://www.iana.org/assignments/iana-ipv4-special-registry),
/// [IPv6](https://www.iana.org/assignments/iana-ipv6-special-registry)), also where they are wrapped in an IPv6 address:
/// IPv4-mapped and NAT64 ones count as the IPv4 address inside, 6to4 and Teredo ones are never public.
///
/// ```
/// use metertrail::alert::AddressPolicy;
///
/// let policy = AddressPolicy::public_only();
/// assert!(policy.permits("1.1.1.1".parse().unwrap()));
/// assert!(!policy.permits("169.254.169.254".parse().unwrap()));
/// assert!(!policy.permits("::ffff:10.0.0.1".parse().unwrap()));
/// assert!(policy.allow("10.0.0.0/8")?.permits("::ffff:10.0.0.1".parse().unwrap()));
/// # Ok::<(), metertrail::Error>(())
/// ```
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct AddressPolicy {
    allowed: Vec<Prefix>,
}

/// A block of addresses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Prefix {
    address: IpAddr,
    length: u8,
}

impl AddressPolicy {
    /// Public addresses.
    pub fn public_only() -> Self {
        Self::default()
    }

    /// A copy that also allows a block, such as `10.0.0.0/8` or `fd00::/8`, or a single address.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `address_block` if it is none.
    pub fn allow(mut self, block: &str) -> Result<Self> {
        let malformed =
            || Error::invalid("address_block", "must be an address, or an address, / and a length");
        let (address, length) = match block.split_once('/') {
            Some((address, length)) => (address, Some(length.parse().map_err(|_| malformed())?)),
            None => (block, None),
        };
        let address: IpAddr = address.parse().map_err(|_| malformed())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let length = length.unwrap_or(longest);
        if length > longest {
            return Err(malformed());
        }
        self.allowed.push(Prefix { address, length });
        Ok(self)
    }

    /// Whether an address may be connected to.
    pub fn permits(&self, address: IpAddr) -> bool {
        let address = inner(address);
        self.allowed.iter().any(|prefix| prefix.contains(address)) || is_public(address)
    }
}

impl Prefix {
    fn contains(self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                (own.to_bits() ^ other.to_bits()).checked_shr(32 - u32::from(self.length)).unwrap_or(0) == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                (own.to_bits() ^ other.to_bits()).checked_shr(128 - u32::from(self.length)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

/// The IPv4 address inside of an IPv4-mapped or NAT64 (RFC 6052) one.
fn inner(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address.to_canonical() else {
        return address.to_canonical();
    };
    match v6.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            let ([one, two], [three, four]) = (high.to_be_bytes(), low.to_be_bytes());
            Ipv4Addr::new(one, two, three, four).into()
        }
        _ => v6.into(),
    }
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    !matches!(
        address.octets(),
        [0 | 10 | 127 | 224..=255, ..]
            | [100, 64..=127, ..]
            | [169, 254, ..]
            | [172, 16..=31, ..]
            | [192, 0, 0 | 2, _]
            | [192, 88, 99, _]
            | [192, 168, ..]
            | [198, 18 | 19, ..]
            | [198, 51, 100, _]
            | [203, 0, 113, _]
    )
}

/// Of all addresses only `2000::/3` are given to anybody; of these some are not for hosts.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let is_global = |segments: &[u16; 8]| segments[0] & 0xe000 == 0x2000;
    let segments = address.segments();
    is_global(&segments)
        && !matches!(
            segments,
            // IETF protocols (Teredo among them), documentation, 6to4, documentation.
            [0x2001, 0..=0x1ff | 0xdb8, ..] | [0x2002, ..] | [0x3fff, 0..=0xfff, ..]
        )
}
