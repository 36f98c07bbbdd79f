//! The Merkle tree hash of RFC 6962 §2.1, made while the leaves stream by.

use ring::digest::{Context, SHA256, digest};

/// A tree of any number of leaves, in memory that grows with their logarithm.
///
/// The hash of a leaf is SHA-256 over a zero byte and the leaf, that of a node SHA-256 over a one byte and its two
/// halves, so that no leaf can pass for a node; an empty tree has the hash of nothing.
#[derive(Clone, Debug, Default)]
pub struct MerkleRoot {
    /// Whole subtrees, the largest first: how many leaves each has, and its hash.
    whole: Vec<(u64, [u8; 32])>,
}

impl MerkleRoot {
    /// Adds the next leaf.
    pub fn add(&mut self, leaf: &[u8]) {
        let (mut size, mut hash) = (1, hashed(&[&[0], leaf]));
        while let Some((left_size, left)) = self.whole.pop_if(|(left, _)| *left == size) {
            size += left_size;
            hash = hashed(&[&[1], &left, &hash]);
        }
        self.whole.push((size, hash));
    }

    /// How many leaves were added.
    #[must_use]
    pub fn leaves(&self) -> u64 {
        self.whole.iter().map(|(size, _)| size).sum()
    }

    /// The hash of the tree.
    #[must_use]
    pub fn root(&self) -> [u8; 32] {
        let from_the_smallest = self.whole.iter().rev().map(|(_, hash)| *hash);
        from_the_smallest.reduce(|right, left| hashed(&[&[1], &left, &right])).unwrap_or_else(|| hashed(&[]))
    }
}

fn hashed(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(part);
    }
    bytes(context.finish().as_ref())
}

/// SHA-256 of `message`.
pub(super) fn sha256(message: &[u8]) -> [u8; 32] {
    bytes(digest(&SHA256, message).as_ref())
}

fn bytes(hash: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(hash);
    out
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    let mut text = String::with_capacity(2 * bytes.len());
    text.extend(digits.filter_map(|digit| char::from_digit(digit.into(), 16)));
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn root_of(leaves: &[Vec<u8>]) -> [u8; 32] {
        let mut tree = MerkleRoot::default();
        for leaf in leaves {
            tree.add(leaf);
        }
        assert_eq!(tree.leaves(), u64::try_from(leaves.len()).unwrap());
        tree.root()
    }

    /// The definition, word by word: split at the largest power of two that is smaller than the number of leaves.
    fn by_definition(leaves: &[Vec<u8>]) -> [u8; 32] {
        match leaves {
            [] => sha256(b""),
            [leaf] => sha256(&[&[0], leaf.as_slice()].concat()),
            _ => {
                let split = leaves.len().next_power_of_two() / 2;
                let (left, right) = leaves.split_at(split);
                sha256(&[&[1][..], &by_definition(left), &by_definition(right)].concat())
            }
        }
    }

    #[test]
    fn known_answers() {
        // The test vectors of the Certificate Transparency code base (RFC 6962).
        let leaves: Vec<Vec<u8>> = vec![
            vec![],
            vec![0x00],
            vec![0x10],
            vec![0x20, 0x21],
            vec![0x30, 0x31],
            vec![0x40, 0x41, 0x42, 0x43],
            vec![0x50, 0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57],
            (0x60..0x70).collect(),
        ];
        for (count, expected) in [
            (0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
            (1, "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"),
            (2, "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"),
            (3, "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"),
            (8, "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"),
        ] {
            assert_eq!(hex(&root_of(&leaves[..count])), expected, "{count} leaves");
        }
    }

    proptest! {
        #[test]
        fn streaming_gives_what_the_definition_gives(
            leaves in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..4), 0..70),
        ) {
            prop_assert_eq!(root_of(&leaves), by_definition(&leaves));
        }
    }
}
