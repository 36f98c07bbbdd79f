//! The clear identifier's only home.

use zeroize::Zeroizing;

use super::profile::CarrierName;

/// A handset's identifier in clear: its network was known first, it came from exactly one field, and it has the
/// carrier's grammar.
///
/// Wiped on drop. Deliberately absent: `Debug`, `Display`, `Clone`, `Serialize`, `PartialEq`.
pub struct RawIdentifier {
    carrier: CarrierName,
    octets: Zeroizing<Box<[u8]>>,
    small_space: bool,
}

impl RawIdentifier {
    /// Joins the parts that make the identifier. At most one part of a profile varies in length, so that two
    /// identifiers of one carrier never join to the same octets; `grammar` has checked that.
    pub(super) fn join<'a>(carrier: CarrierName, parts: impl Iterator<Item = &'a [u8]> + Clone, small: bool) -> Self {
        // Sized beforehand: growing would leave unwiped copies behind.
        let mut octets = Vec::with_capacity(parts.clone().map(<[u8]>::len).sum());
        parts.for_each(|part| octets.extend_from_slice(part));
        Self { carrier, octets: Zeroizing::new(octets.into_boxed_slice()), small_space: small }
    }

    /// An identifier that no request carried: of a canary, a synthetic handset that is followed through a rotation
    /// (`rotation.md` §3). 256 random bits that no carrier gives to a subscriber; stretched, as those of small spaces are.
    #[must_use]
    pub fn canary(octets: &[u8; 32]) -> Self {
        let namespace = CarrierName::parse("canary").unwrap_or_else(|| unreachable!("it has the form of a name"));
        Self::join(namespace, std::iter::once(octets.as_slice()), true)
    }

    /// An identifier that no request carried, for unit tests of the stages behind this one.
    #[cfg(test)]
    pub(crate) fn for_test(carrier: &str, octets: &[u8], small: bool) -> Self {
        Self::join(CarrierName::parse(carrier).unwrap(), std::iter::once(octets), small)
    }

    /// The profile that read it: the namespace of the identifier.
    #[must_use]
    pub const fn carrier(&self) -> &CarrierName {
        &self.carrier
    }

    /// The octets to be hashed: the whole trimmed value, or the profile's `identifier_parts` one after the other.
    /// Every use is a place to review.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.octets
    }

    /// Whether all identifiers of the carrier could be tried, so that a keyed hash of them must be stretched.
    #[must_use]
    pub const fn small_space(&self) -> bool {
        self.small_space
    }
}

#[cfg(test)]
mod tests {
    use static_assertions::assert_not_impl_any;

    use super::RawIdentifier;

    assert_not_impl_any!(
        RawIdentifier: std::fmt::Debug, std::fmt::Display, Clone, PartialEq, serde::Serialize
    );
}
