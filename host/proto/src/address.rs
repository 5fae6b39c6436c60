//! Addresses of nodes: an IP address or a host name, and a port.

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::string::{String, ToString};
use core::fmt;
use core::net::{Ipv6Addr, SocketAddr};
use core::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The most bytes of a host name (RFC 1035).
pub const MAX_HOST_BYTES: usize = 253;
/// The most bytes between two dots of a host name.
const MAX_LABEL_BYTES: usize = 63;

/// The address of a node. A host name is resolved at each dial, so a node may move to another IP address.
///
/// Text and bytes are `10.0.0.1:7400`, `[2001:db8::1]:7400` or `n1.example.org:7400`. Host names are ASCII and kept in
/// lower case.
///
/// ```
/// use rejoin_proto::Address;
///
/// let address: Address = "N1.example.org:7400".parse()?;
/// assert_eq!(address.to_string(), "n1.example.org:7400");
/// assert!("10.0.0.300:7400".parse::<Address>().is_err(), "neither an IP address nor a host name");
/// # Ok::<(), rejoin_proto::BadAddress>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Address {
    /// Dialled as it is.
    Ip(SocketAddr),
    /// Resolved at each dial.
    Host(Host),
}

/// A host name in lower case, and a port.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Host {
    name: Box<str>,
    port: u16,
}

impl Host {
    /// The name, in lower case.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// Why a text is not an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BadAddress {
    /// The port is missing.
    #[error("the port is missing: write HOST:PORT, such as 10.0.0.1:7400 or n1.example.org:7400")]
    NoPort,
    /// The port is not a number up to 65 535.
    #[error("the port after the last colon must be a number, 0 to 65535")]
    Port,
    /// An IPv6 address without brackets.
    #[error("an IPv6 address stands in brackets: [2001:db8::1]:7400")]
    Brackets,
    /// It looks like an IP address and is not one.
    #[error("that is no IP address, and a host name does not end in a number")]
    Ip,
    /// The host is neither an IP address nor a host name.
    #[error(
        "that is no host name: it has 1 to {MAX_HOST_BYTES} bytes, and between its dots 1 to {MAX_LABEL_BYTES} of a-z, \
            0-9, - and _, - not at an end"
    )]
    Host,
    /// It is an address in another form than the canonical one of the wire.
    #[error("the address is not in its canonical form")]
    Form,
}

impl Address {
    /// The UDP port.
    #[must_use]
    pub fn port(&self) -> u16 {
        match self {
            Self::Ip(address) => address.port(),
            Self::Host(host) => host.port,
        }
    }

    /// The IP address and port, `None` for a host name.
    #[must_use]
    pub fn ip(&self) -> Option<SocketAddr> {
        match self {
            Self::Ip(address) => Some(*address),
            Self::Host(_) => None,
        }
    }

    /// The address in a form in which equal addresses compare equal: IPv4-mapped IPv6 as IPv4, and host names without
    /// the dot at the end.
    #[must_use]
    pub fn plain(&self) -> Self {
        match self {
            Self::Ip(address) => Self::Ip(SocketAddr::new(address.ip().to_canonical(), address.port())),
            Self::Host(Host { name, port }) => {
                Self::Host(Host { name: name.trim_end_matches('.').into(), port: *port })
            }
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(address)
    }
}

impl From<([u8; 4], u16)> for Address {
    fn from(address: ([u8; 4], u16)) -> Self {
        Self::Ip(address.into())
    }
}

impl FromStr for Address {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Ip(address));
        }
        if text.parse::<Ipv6Addr>().is_ok() {
            return Err(BadAddress::Brackets);
        }
        let (host, port) = text.rsplit_once(':').ok_or(BadAddress::NoPort)?;
        if text.starts_with('[') {
            return Err(if text.ends_with(']') { BadAddress::NoPort } else { BadAddress::Ip });
        }
        if host.contains(':') {
            return Err(BadAddress::Brackets);
        }
        let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let port = port.parse().ok().filter(|_| digits).ok_or(BadAddress::Port)?;
        check_host(host)?;
        Ok(Self::Host(Host { name: host.to_ascii_lowercase().into(), port }))
    }
}

fn check_host(host: &str) -> Result<(), BadAddress> {
    let labels = host.strip_suffix('.').unwrap_or(host);
    let good = |label: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (1..=MAX_LABEL_BYTES).contains(&label.len())
            && label.bytes().all(allowed)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if host.len() > MAX_HOST_BYTES || !labels.split('.').all(good) {
        return Err(BadAddress::Host);
    }
    // No top-level domain is a number, so this is a mistyped IP address.
    let last = labels.rsplit('.').next().unwrap_or_default();
    if last.bytes().all(|byte| byte.is_ascii_digit()) { Err(BadAddress::Ip) } else { Ok(()) }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Host(Host { name, port }) => write!(f, "{name}:{port}"),
        }
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_string())
    }
}

impl<'de> Deserialize<'de> for Address {
    /// Human-readable formats accept any form of an address, binary ones only the form that [`Serialize`] writes.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let for_people = deserializer.is_human_readable();
        let text = String::deserialize(deserializer)?;
        let address: Self = text.parse().map_err(|why| serde::de::Error::custom(Refused { text: &text, why }))?;
        if !for_people && address.to_string() != text {
            return Err(serde::de::Error::custom(Refused { text: &text, why: BadAddress::Form }));
        }
        Ok(address)
    }
}

/// The error of a refused text.
struct Refused<'a> {
    text: &'a str,
    why: BadAddress,
}

impl fmt::Display for Refused<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { text, why } = self;
        let short: String = text.chars().take(MAX_HOST_BYTES).collect();
        write!(f, "{:?}: {why}", short.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    fn parse(text: &str) -> Result<String, BadAddress> {
        text.parse().map(|address: Address| address.to_string())
    }

    #[test]
    fn addresses_have_one_form() {
        for (text, form) in [
            ("10.0.0.1:7400", "10.0.0.1:7400"),
            ("[2001:DB8:0::1]:7400", "[2001:db8::1]:7400"),
            ("[::]:0", "[::]:0"),
            ("N1:7400", "n1:7400"),
            ("db_1.Example.org.:1", "db_1.example.org.:1"),
            ("4u.example:65535", "4u.example:65535"),
        ] {
            assert_eq!(parse(text).as_deref(), Ok(form), "{text}");
            assert_eq!(parse(form).as_deref(), Ok(form));
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_reason() {
        let long = format!("{}:7400", ["a"; 128].join("."));
        for (text, why) in [
            ("", BadAddress::NoPort),
            ("n1.example.org", BadAddress::NoPort),
            ("[::1]", BadAddress::NoPort),
            ("n1:", BadAddress::Port),
            ("n1:+1", BadAddress::Port),
            ("n1:65536", BadAddress::Port),
            ("10.0.0.1:http", BadAddress::Port),
            ("::1", BadAddress::Brackets),
            ("2001:db8::1:7400", BadAddress::Brackets),
            ("2001:db8::1:74000", BadAddress::Brackets),
            ("[::g]:7400", BadAddress::Ip),
            ("10.0.0.300:7400", BadAddress::Ip),
            ("10.0.1:7400", BadAddress::Ip),
            ("7400:7400", BadAddress::Ip),
            (":7400", BadAddress::Host),
            ("n 1:7400", BadAddress::Host),
            ("-n:7400", BadAddress::Host),
            ("a..b:7400", BadAddress::Host),
            ("zürich:7400", BadAddress::Host),
            (&long, BadAddress::Host),
        ] {
            assert_eq!(parse(text), Err(why), "{text}");
        }
    }

    #[test]
    fn two_writings_of_one_address_are_plainly_one() {
        let plain = |text: &str| text.parse::<Address>().expect("an address").plain();
        assert_eq!(plain("[::ffff:10.0.0.1]:7400"), plain("10.0.0.1:7400"));
        assert_eq!(plain("n1.example.:7400"), plain("n1.EXAMPLE:7400"));
        assert_ne!(plain("n1.example:7400"), plain("n1.example:7401"));
    }

    #[test]
    fn bytes_are_taken_in_their_one_form_only() {
        let taken = |text: &str| postcard::from_bytes::<Address>(&postcard::to_allocvec(text).expect("bytes")).is_ok();
        assert!(taken("n1.example:7400") && taken("[::1]:7400"));
        assert!(!taken("N1.example:7400") && !taken("[0::1]:7400") && !taken("n1.example"));
    }
}
