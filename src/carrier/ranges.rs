//! Address ranges and their look-up. Pure.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

/// Disjoint source networks, each with a value; a look-up is a binary search.
///
/// IPv4-mapped IPv6 counts as IPv4 on both sides (RFC 4291 §2.5.5.2).
pub(super) struct Ranges<T> {
    /// By first address; no two overlap. All IPv4 addresses sort before all IPv6 addresses.
    entries: Vec<(IpNet, T)>,
}

impl<T: Copy> Ranges<T> {
    /// The ranges, or every network that lies in another one, behind that one.
    pub(super) fn new(networks: impl IntoIterator<Item = (IpNet, T)>) -> Result<Self, Vec<[(IpNet, T); 2]>> {
        let mut entries: Vec<_> = networks.into_iter().map(|(net, value)| (canonical(net), value)).collect();
        entries.sort_by_key(|(net, _)| (net.network(), net.prefix_len()));
        // Of two networks that overlap one contains the other, so in this order a container stands before its content.
        let mut overlaps = Vec::new();
        let mut container: Option<(IpNet, T)> = None;
        for entry in &entries {
            match container {
                Some(outer) if outer.0.contains(&entry.0) => overlaps.push([outer, *entry]),
                _ => container = Some(*entry),
            }
        }
        if overlaps.is_empty() { Ok(Self { entries }) } else { Err(overlaps) }
    }

    /// The value of the range that holds `address`.
    pub(super) fn find(&self, address: IpAddr) -> Option<&T> {
        let address = address.to_canonical();
        let after = self.entries.partition_point(|(net, _)| net.network() <= address);
        let (net, value) = self.entries.get(after.checked_sub(1)?)?;
        net.contains(&address).then_some(value)
    }
}

/// The network without host bits; one of IPv4-mapped addresses as IPv4.
pub(super) fn canonical(net: IpNet) -> IpNet {
    let net = net.trunc();
    if let IpNet::V6(v6) = net
        && let (Some(v4), Some(prefix)) = (v6.network().to_ipv4_mapped(), v6.prefix_len().checked_sub(96))
        && let Ok(mapped) = Ipv4Net::new(v4, prefix)
    {
        return IpNet::V4(mapped);
    }
    net
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn mapped_addresses_are_ipv4_on_both_sides() {
        let ranges = Ranges::new([(net("::ffff:192.0.2.0/120"), 'a'), (net("198.51.100.7/32"), 'b')]).ok().unwrap();
        for (address, found) in [
            ("192.0.2.9", Some('a')),
            ("::ffff:192.0.2.9", Some('a')),
            ("192.0.3.0", None),
            ("::ffff:198.51.100.7", Some('b')),
            ("198.51.100.8", None),
            ("2001:db8::1", None),
        ] {
            assert_eq!(ranges.find(address.parse().unwrap()).copied(), found, "{address}");
        }
    }

    #[test]
    fn overlaps_are_found() {
        for (a, b) in [
            ("10.0.0.0/8", "10.64.0.0/16"),
            ("10.64.0.0/16", "10.0.0.0/8"),
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("::ffff:10.1.0.0/112", "10.0.0.0/8"),
            ("2001:db8::/32", "2001:db8:64::/48"),
        ] {
            let overlaps = Ranges::new([(net("9.0.0.0/8"), 0), (net(a), 1), (net(b), 2)]).err().unwrap();
            assert_eq!(overlaps.len(), 1, "{a} {b}");
        }
        let nested = [(net("10.0.0.0/8"), 0), (net("10.1.0.0/16"), 1), (net("10.2.0.0/16"), 2), (net("11.0.0.0/8"), 3)];
        let inner: Vec<_> = Ranges::new(nested).err().unwrap().iter().map(|[_, (_, value)]| *value).collect();
        assert_eq!(inner, [1, 2]);
        assert!(Ranges::new([(net("10.0.0.0/9"), 0), (net("10.128.0.0/9"), 1), (net("a00::/8"), 2)]).is_ok());
    }

    fn networks() -> impl Strategy<Value = Vec<IpNet>> {
        // A small corner of the address space, so that networks and addresses meet.
        let v4 = (0u8..4, any::<u8>(), 16u8..=32).prop_map(|(c, d, len)| net(&format!("10.0.{c}.{d}/{len}")));
        let v6 = (any::<u16>(), 96u8..=128).prop_map(|(d, len)| net(&format!("2001:db8::{d:x}/{len}")));
        prop::collection::vec(prop_oneof![v4, v6], 0..12)
    }

    proptest! {
        #[test]
        fn a_look_up_equals_a_linear_scan(nets in networks(), d in any::<u16>(), kind in 0..3) {
            let mut disjoint: Vec<(IpNet, usize)> = Vec::new();
            for (i, candidate) in nets.into_iter().map(canonical).enumerate() {
                if !disjoint.iter().any(|(n, _)| n.contains(&candidate) || candidate.contains(n)) {
                    disjoint.push((candidate, i));
                }
            }
            let address: IpAddr = match kind {
                0 => format!("10.0.{}.{}", (d >> 8) % 5, d & 255).parse().unwrap(),
                1 => format!("::ffff:10.0.{}.{}", (d >> 8) % 5, d & 255).parse().unwrap(),
                _ => format!("2001:db8::{d:x}").parse().unwrap(),
            };
            let scan = disjoint.iter().find(|(n, _)| n.contains(&address.to_canonical())).map(|(_, i)| *i);
            let ranges = Ranges::new(disjoint).ok().unwrap();
            prop_assert_eq!(ranges.find(address).copied(), scan);
        }
    }
}
