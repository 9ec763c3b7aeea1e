//! The words of EXPOSE (I4).

use std::fmt::{self, Display};
use std::net::IpAddr;

/// A range of ports of one protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// First port.
    pub first: u16,
    /// Last port.
    pub last: u16,
    /// The protocol.
    pub protocol: Protocol,
    /// Whether the protocol was written with capitals (lint rule ExposeProtoCasing).
    pub has_upper_case_protocol: bool,
    /// Whether an address or a host port was given; both are ignored (lint rule ExposeInvalidFormat).
    pub has_host_part: bool,
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// `tcp`, the default.
    Tcp,
    /// `udp`.
    Udp,
    /// `sctp`.
    Sctp,
}

impl Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// Why a word of EXPOSE is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the error texts say it")]
pub enum PortError {
    #[error("invalid port: {0:?}: no port specified")]
    Missing(String),
    #[error("invalid port: {word:?}: invalid proto: {protocol}")]
    InvalidProtocol { word: String, protocol: String },
    #[error("invalid containerPort: {0}")]
    InvalidContainerPort(String),
    #[error("invalid hostPort: {0}")]
    InvalidHostPort(String),
    #[error("invalid IP address: {0}")]
    InvalidAddress(String),
    #[error("invalid ranges specified for container and host Ports: {container} and {host}")]
    RangesDiffer { container: String, host: String },
}

impl Ports {
    /// Parses `[[address:]host:]port[-port][/protocol]`.
    ///
    /// # Errors
    /// [`PortError`] in the reference's words.
    pub fn parse(word: &str) -> Result<Self, PortError> {
        let (address, host, container) = split(word);
        let (ports, protocol) = container.split_once('/').unwrap_or((container, ""));
        if ports.is_empty() {
            return Err(PortError::Missing(word.to_owned()));
        }
        let lower = protocol.to_lowercase();
        let known = match lower.as_str() {
            "" | "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            "sctp" => Protocol::Sctp,
            _ => {
                let (word, protocol) = (word.to_owned(), protocol.to_owned());
                return Err(PortError::InvalidProtocol { word, protocol });
            }
        };
        check_address(address)?;
        let (first, last) = range(ports).ok_or_else(|| PortError::InvalidContainerPort(ports.to_owned()))?;
        check_host(host, ports, (first, last))?;
        Ok(Self {
            first,
            last,
            protocol: known,
            has_upper_case_protocol: lower != protocol,
            has_host_part: !address.is_empty() || !host.is_empty(),
        })
    }

    /// Returns the keys of `ExposedPorts`: `80/tcp`, …
    pub fn keys(self) -> impl Iterator<Item = String> {
        (self.first..=self.last).map(move |port| format!("{port}/{}", self.protocol))
    }
}

/// Splits at the last two colons: an IPv6 address has more of them.
fn split(word: &str) -> (&str, &str, &str) {
    let Some((head, container)) = word.rsplit_once(':') else { return ("", "", word) };
    let (address, host) = head.rsplit_once(':').unwrap_or(("", head));
    (address, host, container)
}

fn check_address(address: &str) -> Result<(), PortError> {
    let bare = address.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(address);
    if address.is_empty() || bare.parse::<IpAddr>().is_ok() {
        return Ok(());
    }
    Err(PortError::InvalidAddress(address.to_owned()))
}

/// A range of host ports must be as long as that of the container, unless that is a single port.
fn check_host(host: &str, ports: &str, (first, last): (u16, u16)) -> Result<(), PortError> {
    if host.is_empty() {
        return Ok(());
    }
    let (low, high) = range(host).ok_or_else(|| PortError::InvalidHostPort(host.to_owned()))?;
    if first != last && last - first != high - low {
        return Err(PortError::RangesDiffer { container: ports.to_owned(), host: host.to_owned() });
    }
    Ok(())
}

fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(first)?, port(last)?);
    (first <= last).then_some((first, last))
}

/// Like Go's `ParseInt` a plus sign is allowed.
fn port(text: &str) -> Option<u16> {
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(word: &str) -> Vec<String> {
        Ports::parse(word).unwrap().keys().collect()
    }

    #[test]
    fn words_become_keys() {
        assert_eq!(keys("80"), ["80/tcp"]);
        assert_eq!(keys("443/UDP"), ["443/udp"]);
        assert_eq!(keys("8000-8002/sctp"), ["8000/sctp", "8001/sctp", "8002/sctp"]);
        assert_eq!(keys("127.0.0.1:8080:80"), ["80/tcp"]);
        assert_eq!(keys("[::1]:8080:80"), ["80/tcp"]);
        assert_eq!(keys("8080:80"), ["80/tcp"]);
        assert_eq!(keys("0"), ["0/tcp"]);
        assert_eq!(keys("80/"), ["80/tcp"]);
    }

    #[test]
    fn what_lint_wants_to_know_is_kept() {
        assert!(Ports::parse("80/TCP").unwrap().has_upper_case_protocol);
        assert!(!Ports::parse("80/tcp").unwrap().has_upper_case_protocol);
        assert!(Ports::parse("8080:80").unwrap().has_host_part);
        assert!(!Ports::parse("80").unwrap().has_host_part);
    }

    #[test]
    fn other_words_are_refused() {
        let cases = [
            ("abc", "invalid containerPort: abc"),
            ("65536", "invalid containerPort: 65536"),
            ("90-80", "invalid containerPort: 90-80"),
            ("80/foo", "invalid proto: foo"),
            ("/tcp", "no port specified"),
            ("x:80", "invalid hostPort: x"),
            ("1.2.3:1:80", "invalid IP address: 1.2.3"),
            ("1-2:1-3", "invalid ranges specified"),
        ];
        for (word, expected) in cases {
            let error = Ports::parse(word).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
