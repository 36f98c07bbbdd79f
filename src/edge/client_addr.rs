//! Who asks: the nearest hop that is not one of our proxies. Pure; no sockets.

use std::net::{IpAddr, Ipv6Addr};

use http::header::HeaderName;
use ipnet::IpNet;
use thiserror::Error;

use super::head::RawHead;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Entries of `X-Forwarded-For` that are read at most; a longer walk means a loop or an attack.
pub(super) const MAX_HOPS: usize = 32;

/// The scheme of a request as its client saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Plain HTTP.
    Http,
    /// HTTP over TLS.
    Https,
}

impl Scheme {
    /// `http` or `https`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// Who asks: the nearest hop we do not trust, and how its request reached the first hop that we do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// Its address.
    pub address: ClientAddr,
    /// Its scheme.
    pub scheme: Scheme,
}

/// The address of the nearest hop that we do not trust; IPv4-mapped IPv6 stands as IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientAddr(IpAddr);

impl ClientAddr {
    /// The address.
    #[must_use]
    pub const fn ip(&self) -> IpAddr {
        self.0
    }

    /// The network it lies in, as far as limits and logs look: /24, or /48 for IPv6.
    #[must_use]
    pub fn network(&self) -> IpNet {
        let prefix = match self.0 {
            IpAddr::V4(_) => 24,
            IpAddr::V6(_) => 48,
        };
        IpNet::new(self.0, prefix).map_or_else(|_| IpNet::from(self.0), |net| net.trunc())
    }
}

/// Whom the limits of one address count: an IPv4 address, or the /64 of an IPv6 address, since a client picks the rest by
/// itself (RFC 4291 §2.5.1). IPv4-mapped IPv6 counts as IPv4.
#[must_use]
pub fn counted_as(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// A trusted proxy did not say where the request came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("unknown-source-address")]
pub struct UnknownSource;

/// The proxies in front of us whose forwarding fields are believed.
#[derive(Clone, Debug)]
pub struct TrustedProxies {
    networks: Vec<IpNet>,
}

impl TrustedProxies {
    /// The proxies within these networks.
    #[must_use]
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self { networks }
    }

    /// Whether nobody is believed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty()
    }

    /// One of the networks that has addresses in common with `network`.
    #[must_use]
    pub fn overlapping(&self, network: &IpNet) -> Option<&IpNet> {
        self.networks.iter().find(|proxies| proxies.contains(network) || network.contains(*proxies))
    }

    /// Whether `peer` is one of them.
    #[must_use]
    pub fn trusts(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.networks.iter().any(|net| net.contains(&peer))
    }

    /// Finds the nearest hop that is not one of our proxies.
    ///
    /// Walks all `X-Forwarded-For` fields as one list from right to left, starting at `peer`, and stops at the first
    /// address outside the trusted set; what stands left of it is the client's own claim and is never read.
    /// `connection` is the scheme of the TCP connection; a trusted peer's `X-Forwarded-Proto` (its last entry, the
    /// one our nearest proxy wrote) replaces it.
    ///
    /// # Errors
    /// [`UnknownSource`] if a trusted hop wrote no entry, one that is no address, or a scheme that is none; never guesses.
    pub fn resolve(&self, peer: IpAddr, connection: Scheme, head: &RawHead) -> Result<Client, UnknownSource> {
        let peer = peer.to_canonical();
        if !self.trusts(peer) {
            return Ok(Client { address: ClientAddr(peer), scheme: connection });
        }
        let fields: Vec<_> = head.all(&X_FORWARDED_FOR).collect();
        let entries = fields.iter().rev().flat_map(|field| field.as_bytes().rsplit(|b| *b == b','));
        for entry in entries.take(MAX_HOPS) {
            let text = std::str::from_utf8(entry.trim_ascii()).map_err(|_| UnknownSource)?;
            let address: IpAddr = text.parse().map_err(|_| UnknownSource)?;
            let address = address.to_canonical();
            if !self.trusts(address) {
                let scheme = forwarded_scheme(head, connection)?;
                return Ok(Client { address: ClientAddr(address), scheme });
            }
        }
        Err(UnknownSource)
    }
}

/// What our nearest proxy wrote of the scheme; that of its own connection if it wrote nothing.
fn forwarded_scheme(head: &RawHead, connection: Scheme) -> Result<Scheme, UnknownSource> {
    let Some(field) = head.all(&X_FORWARDED_PROTO).last() else { return Ok(connection) };
    let last = field.as_bytes().rsplit(|b| *b == b',').next().unwrap_or_default().trim_ascii();
    let is_one_of = |names: [&str; 2]| names.iter().any(|name| last.eq_ignore_ascii_case(name.as_bytes()));
    // Traefik names the scheme of a WebSocket (RFC 6455 §3), which is carried by the same connections.
    if is_one_of(["https", "wss"]) {
        Ok(Scheme::Https)
    } else if is_one_of(["http", "ws"]) {
        Ok(Scheme::Http)
    } else {
        // Taken for plain HTTP, it would let a handset's own identifier pass for the carrier's.
        Err(UnknownSource)
    }
}

#[cfg(test)]
mod tests {
    use http::Request;
    use proptest::prelude::*;

    use super::*;
    use crate::edge::HeadLimits;

    fn resolve(peer: &str, forwarded: &[&str], proto: Option<&str>) -> Result<(String, Scheme), UnknownSource> {
        let limits = HeadLimits { head_bytes: 65_536, headers: 100, url_bytes: 1024 };
        let mut request = Request::get("/");
        for value in forwarded {
            request = request.header("X-Forwarded-For", *value);
        }
        if let Some(proto) = proto {
            request = request.header("X-Forwarded-Proto", proto);
        }
        let head = RawHead::read(request.body(()).unwrap().into_parts().0, &limits).unwrap();
        let proxies = TrustedProxies::new(vec!["192.0.2.10/31".parse().unwrap(), "2001:db8:ff::/64".parse().unwrap()]);
        proxies
            .resolve(peer.parse().unwrap(), Scheme::Http, &head)
            .map(|client| (client.address.ip().to_string(), client.scheme))
    }

    #[test]
    fn the_nearest_untrusted_hop_is_found() {
        for (peer, forwarded, expected) in [
            ("203.0.113.1", &[][..], Ok("203.0.113.1")),
            ("203.0.113.1", &["198.51.100.1"], Ok("203.0.113.1")),
            ("::ffff:203.0.113.1", &[], Ok("203.0.113.1")),
            ("192.0.2.10", &["198.51.100.1"], Ok("198.51.100.1")),
            ("::ffff:192.0.2.10", &["::ffff:198.51.100.1"], Ok("198.51.100.1")),
            ("192.0.2.10", &["203.0.113.9, 198.51.100.1, 192.0.2.11"], Ok("198.51.100.1")),
            ("192.0.2.10", &["203.0.113.9", "198.51.100.1"], Ok("198.51.100.1")),
            ("2001:db8:ff::5", &["2001:db8::1"], Ok("2001:db8::1")),
            ("192.0.2.10", &[], Err(UnknownSource)),
            ("192.0.2.10", &[""], Err(UnknownSource)),
            ("192.0.2.10", &["192.0.2.11"], Err(UnknownSource)),
            ("192.0.2.10", &["198.51.100.1, unknown"], Err(UnknownSource)),
            ("192.0.2.10", &["198.51.100.1,"], Err(UnknownSource)),
            ("192.0.2.10", &["198.51.100.1:80"], Err(UnknownSource)),
            ("192.0.2.10", &["010.0.0.1"], Err(UnknownSource)),
        ] {
            let found = resolve(peer, forwarded, None).map(|(address, _)| address);
            assert_eq!(found, expected.map(str::to_owned), "{peer} {forwarded:?}");
        }
    }

    #[test]
    fn only_a_trusted_peer_tells_the_scheme() {
        assert_eq!(resolve("192.0.2.10", &["198.51.100.1"], Some("https")).unwrap().1, Scheme::Https);
        assert_eq!(resolve("192.0.2.10", &["198.51.100.1"], Some("https, http")).unwrap().1, Scheme::Http);
        assert_eq!(resolve("192.0.2.10", &["198.51.100.1"], Some("WSS")).unwrap().1, Scheme::Https);
        assert_eq!(resolve("192.0.2.10", &["198.51.100.1"], Some("https,ws")).unwrap().1, Scheme::Http);
        assert_eq!(resolve("192.0.2.10", &["198.51.100.1"], Some("gopher")), Err(UnknownSource));
        assert_eq!(resolve("192.0.2.10", &["198.51.100.1"], None).unwrap().1, Scheme::Http);
        assert_eq!(resolve("203.0.113.1", &[], Some("https")).unwrap().1, Scheme::Http);
    }

    proptest! {
        #[test]
        fn entries_added_on_the_left_never_move_the_client(left in "[ -~]{0,60}", right in any::<std::net::Ipv4Addr>()) {
            let right = right.to_string();
            let alone = resolve("192.0.2.10", &[&right], None);
            prop_assume!(alone.is_ok()); // an address of our own proxies is walked past
            let joined = format!("{left},{right}");
            prop_assert_eq!(&resolve("192.0.2.10", &[&joined], None), &alone);
            prop_assert_eq!(&resolve("192.0.2.10", &[&left, &right], None), &alone);
        }
    }
}
