//! `https://admin.example.jp`: origins of the gateway and of upstream servers.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use thiserror::Error;

/// An origin: scheme, host and port, no path, no trailing slash (RFC 6454 §6.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// `https` rather than `http`.
    pub https: bool,
    /// Host, lower case; an IPv6 address stands in brackets.
    pub host: String,
    /// Port, where it is not the scheme's own.
    pub port: Option<u16>,
}

/// Why a text is no origin. Never repeats the text: a URL may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum OriginError {
    #[error("must begin with http:// or https://")]
    Scheme,
    #[error("must not hold a user name or password")]
    UserInformation,
    #[error("must end after host and port: no path, no query, no final /")]
    Path,
    #[error("the host is neither a DNS name in ASCII nor an address (IPv6 in brackets)")]
    Host,
    #[error("the port must be 1 to 65535")]
    Port,
}

impl Origin {
    /// Reads `http://HOST[:PORT]` or `https://HOST[:PORT]`.
    pub(crate) fn parse(text: &str) -> Result<Self, OriginError> {
        let (scheme, rest) = text.split_once("://").ok_or(OriginError::Scheme)?;
        let https = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            _ => return Err(OriginError::Scheme),
        };
        if rest.contains('@') {
            return Err(OriginError::UserInformation);
        }
        if rest.contains(['/', '?', '#', '\\']) {
            return Err(OriginError::Path);
        }
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(parse_port(port)?)),
            _ => (rest, None),
        };
        let host = host.to_ascii_lowercase();
        if !is_host(&host) {
            return Err(OriginError::Host);
        }
        let own = default_port(https);
        Ok(Self { https, host, port: port.filter(|port| *port != own) })
    }

    /// The port, the scheme's own where none is written.
    pub(crate) fn effective_port(&self) -> u16 {
        self.port.unwrap_or(default_port(self.https))
    }

    /// Whether it names this very machine.
    pub(super) fn is_loopback(&self) -> bool {
        let bare = self.bare_host();
        bare == "localhost"
            || bare.ends_with(".localhost")
            || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
    }

    /// The host without brackets, as sockets want it.
    pub(crate) fn bare_host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.https { "https" } else { "http" };
        match self.port {
            None => write!(f, "{scheme}://{}", self.host),
            Some(port) => write!(f, "{scheme}://{}:{port}", self.host),
        }
    }
}

/// Whether `text` is a DNS name (RFC 1123 §2.1, `_` tolerated), an IPv4 address or an IPv6 address in brackets.
pub(super) fn is_host(text: &str) -> bool {
    if let Some(inner) = text.strip_prefix('[') {
        return inner.strip_suffix(']').is_some_and(|address| address.parse::<Ipv6Addr>().is_ok());
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // A name whose last label is a number is read as an address by every client (URL standard, "ends in a number").
    let numeric = text.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
    text.len() <= 253 && text.split('.').all(label) && (!numeric || text.parse::<Ipv4Addr>().is_ok())
}

fn default_port(https: bool) -> u16 {
    if https { 443 } else { 80 }
}

fn parse_port(text: &str) -> Result<u16, OriginError> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port != 0).ok_or(OriginError::Port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_read_and_print() {
        for (written, printed) in [
            ("https://admin.example.jp", "https://admin.example.jp"),
            ("HTTPS://Admin.Example.JP:443", "https://admin.example.jp"),
            ("http://admin.example.jp:80", "http://admin.example.jp"),
            ("http://127.0.0.1:9000", "http://127.0.0.1:9000"),
            ("http://[2001:db8::1]", "http://[2001:db8::1]"),
            ("https://[::1]:8443", "https://[::1]:8443"),
            ("http://app_server", "http://app_server"),
        ] {
            assert_eq!(Origin::parse(written).map(|o| o.to_string()), Ok(printed.to_owned()), "{written}");
        }
    }

    #[test]
    fn other_texts_are_named() {
        for (written, error) in [
            ("admin.example.jp", OriginError::Scheme),
            ("ftp://admin.example.jp", OriginError::Scheme),
            ("https://u:p@admin.example.jp", OriginError::UserInformation),
            ("https://admin.example.jp/", OriginError::Path),
            ("https://admin.example.jp?x", OriginError::Path),
            ("https://", OriginError::Host),
            ("https://.", OriginError::Host),
            ("https://a b", OriginError::Host),
            ("https://関所.example", OriginError::Host),
            ("https://-a.example", OriginError::Host),
            ("https://1.2.3", OriginError::Host),
            ("https://256.0.0.1", OriginError::Host),
            ("https://2001:db8::1", OriginError::Host),
            ("https://[2001:db8::1", OriginError::Host),
            ("https://a:0", OriginError::Port),
            ("https://a:65536", OriginError::Port),
            ("https://a:", OriginError::Port),
            ("https://a:+1", OriginError::Port),
        ] {
            assert_eq!(Origin::parse(written), Err(error), "{written}");
        }
    }

    #[test]
    fn loopback_is_known() {
        for written in
            ["http://127.0.0.1", "http://127.9.9.9:1", "http://[::1]", "http://localhost", "http://a.localhost"]
        {
            assert!(Origin::parse(written).unwrap().is_loopback(), "{written}");
        }
        for written in ["http://10.0.0.1", "http://localhost.example", "http://[2001:db8::1]"] {
            assert!(!Origin::parse(written).unwrap().is_loopback(), "{written}");
        }
    }
}
