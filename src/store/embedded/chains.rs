//! The column `chain`, read of many records: a store has millions of them and a handful of chains.

use rusqlite::types::ValueRef;

use crate::binding::Chain;
use crate::store::StoreError;

/// Chains that were read so far: each is parsed once.
#[derive(Default)]
pub(super) struct Chains(Vec<(String, Chain)>);

impl Chains {
    /// The chain that stands in `value`.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if it is none.
    pub(super) fn read(&mut self, value: ValueRef<'_>) -> Result<&Chain, StoreError> {
        let corrupt = || StoreError::Corrupt("column chain".into());
        let text = value.as_str().map_err(|_| corrupt())?;
        let known = self.0.iter().position(|(known, _)| known == text);
        let at = known.unwrap_or(self.0.len());
        if known.is_none() {
            self.0.push((text.to_owned(), Chain::parse(text).map_err(|_| corrupt())?));
        }
        self.0.get(at).map(|(_, chain)| chain).ok_or_else(corrupt)
    }
}
