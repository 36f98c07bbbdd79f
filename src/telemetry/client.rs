//! What a log says of a client's address (`privacy.client_address`).

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Serialize, Serializer};

use super::json::number;
use crate::config::ClientAddressDetail;
use crate::edge::{ClientAddr, write_address};

/// An address, cut to what the configuration lets logs say.
#[derive(Clone, Copy)]
pub(super) enum ShownClient {
    Address(IpAddr),
    Network(IpNet),
}

impl ShownClient {
    /// Cuts `client` to `detail`.
    pub(super) fn of(client: Option<ClientAddr>, detail: ClientAddressDetail) -> Option<Self> {
        let client = client?;
        match detail {
            ClientAddressDetail::Full => Some(Self::Address(client.ip())),
            ClientAddressDetail::Prefix => Some(Self::Network(client.network())),
            ClientAddressDetail::None => None,
        }
    }
}

impl ShownClient {
    /// Adds it to `line` as `Display` writes it, for a fraction of that.
    pub(super) fn write(&self, line: &mut Vec<u8>) {
        // A Vec takes every write.
        match self {
            Self::Address(address) => drop(write_address(line, *address)),
            Self::Network(network) => {
                drop(write_address(line, network.addr()));
                line.push(b'/');
                number(line, network.prefix_len().into());
            }
        }
    }
}

impl fmt::Display for ShownClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Network(network) => network.fmt(f),
        }
    }
}

impl Serialize for ShownClient {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::edge::{HeadLimits, RawHead, Scheme, TrustedProxies};

    #[test]
    fn an_address_is_cut_to_its_network_or_left_out() {
        for (address, detail, shown) in [
            ("192.0.2.77", ClientAddressDetail::Full, Some("192.0.2.77")),
            ("192.0.2.77", ClientAddressDetail::Prefix, Some("192.0.2.0/24")),
            ("2001:db8:1:2::3", ClientAddressDetail::Prefix, Some("2001:db8:1::/48")),
            ("192.0.2.77", ClientAddressDetail::None, None),
        ] {
            let client = client(address);
            let said = ShownClient::of(Some(client), detail);
            assert_eq!(said.map(|c| c.to_string()).as_deref(), shown, "{address}");
            let mut line = Vec::new();
            if let Some(said) = said {
                said.write(&mut line);
            }
            assert_eq!(line, shown.unwrap_or_default().as_bytes());
        }
    }

    fn client(address: &str) -> ClientAddr {
        let limits = HeadLimits { head_bytes: 4096, headers: 20, url_bytes: 1024 };
        let head = RawHead::read(Request::get("/").body(()).unwrap().into_parts().0, &limits).unwrap();
        TrustedProxies::new(Vec::new()).resolve(address.parse().unwrap(), Scheme::Http, &head).unwrap().address
    }
}
