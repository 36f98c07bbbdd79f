//! The trail as lines of text, a page at a time, with all that verification elsewhere needs.

use std::fmt::Write as _;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::entry::{Entry, EntryHash, Tip, canonical, store_name};
use super::lines::{End, EndLine, FORMAT, Head, HeadLine, KeyLine, PublicKey, raw_checkpoint, raw_entry};
use crate::store::{AuditStore, StoreError, StoredAuditEntry};

/// Entries that are read at a time.
const PAGE: u32 = 500;

/// An export at work. What it gives ends with the entry that was the last when it began.
pub struct Export {
    store: Arc<dyn AuditStore>,
    store_id: [u8; 16],
    first: Tip,
    next: Next,
    last: Tip,
}

enum Next {
    Head,
    Behind(u64),
    Nothing,
}

impl Export {
    /// Of the entries behind number `after`; `None` if there is no such entry.
    pub(super) async fn behind(
        store: Arc<dyn AuditStore>,
        store_id: [u8; 16],
        after: u64,
    ) -> Result<Option<Self>, StoreError> {
        let before_all = Tip { seq: 0, hash: EntryHash::before_all(&store_id) };
        let last = store.audit_head().await?.unwrap_or(before_all);
        let begins = begin(&*store, before_all).await?;
        let first = match after {
            0 => Some(begins),
            seq if seq <= begins.seq => Some(begins).filter(|begins| begins.seq == seq),
            seq => store.audit_entries(seq - 1, 1).await?.into_iter().next().filter(|e| e.seq == seq).map(|e| e.tip()),
        };
        Ok(first.map(|first| Self { store, store_id, first, next: Next::Head, last }))
    }

    /// Of the entries behind `first`, whatever the store holds there.
    pub(super) async fn behind_tip(
        store: Arc<dyn AuditStore>,
        store_id: [u8; 16],
        first: Tip,
    ) -> Result<Self, StoreError> {
        let last = store.audit_head().await?.unwrap_or(first);
        Ok(Self { store, store_id, first, next: Next::Head, last })
    }

    /// The next lines, each with its line feed; `None` after the last.
    ///
    /// # Errors
    /// [`StoreError`]; then the end is missing, which whoever verifies will see.
    pub async fn page(&mut self) -> Result<Option<String>, StoreError> {
        match self.next {
            Next::Head => {
                self.next = Next::Behind(self.first.seq);
                self.head().await.map(Some)
            }
            Next::Behind(seq) if seq < self.last.seq => self.entries(seq).await.map(Some),
            Next::Behind(_) => {
                self.next = Next::Nothing;
                let entries = self.last.seq.saturating_sub(self.first.seq);
                let end = EndLine { end: End { entries, head: self.last.hash } };
                Ok(Some(canonical(&end) + "\n"))
            }
            Next::Nothing => Ok(None),
        }
    }

    async fn head(&self) -> Result<String, StoreError> {
        let Tip { seq, hash } = self.first;
        let head = Head { format: FORMAT, from: seq + 1, prev: hash, store: store_name(&self.store_id) };
        let mut text = canonical(&HeadLine { audit: head }) + "\n";
        for key in self.store.sealing_keys(seq, self.last.seq).await? {
            let key = KeyLine { public_key: PublicKey { id: key.id, point: key.public.text() } };
            text.push_str(&canonical(&key));
            text.push('\n');
        }
        Ok(text)
    }

    /// Whether entry `after` is before the beginning of the trail as it is now.
    async fn begins_behind(&self, after: u64) -> Result<bool, StoreError> {
        let first = self.store.audit_entries(0, 1).await?;
        Ok(first.first().is_some_and(|first| first.seq > after + 1))
    }

    async fn entries(&mut self, after: u64) -> Result<String, StoreError> {
        let left = u32::try_from(self.last.seq - after).unwrap_or(u32::MAX);
        let entries = self.store.audit_entries(after, PAGE.min(left)).await?;
        if entries.first().is_some_and(|first| first.seq > after + 1) && self.begins_behind(after).await? {
            // Not a gap, which whoever verifies must see.
            return Err(StoreError::Unavailable("entries became old enough to be erased; export again".into()));
        }
        let Some(until) = entries.last().map(|entry| entry.seq) else {
            // They were there when it began: the end line will tell.
            self.next = Next::Behind(self.last.seq);
            return Ok(String::new());
        };
        let checkpoints = self.store.checkpoints(after, until).await?;
        let mut checkpoints = checkpoints.into_iter().peekable();
        let mut text = String::new();
        for entry in entries {
            // A String takes every write.
            let _ = writeln!(text, "{}", raw_entry(&entry.text, entry.hash));
            while let Some(checkpoint) = checkpoints.next_if(|checkpoint| checkpoint.seq <= entry.seq) {
                let seal = URL_SAFE_NO_PAD.encode(&checkpoint.seal);
                let _ = writeln!(text, "{}", raw_checkpoint(&checkpoint.text, &seal));
            }
        }
        self.next = Next::Behind(until);
        Ok(text)
    }
}

/// What the first entry of the trail stands behind: `before_all`, or the last of those that were erased.
async fn begin(store: &dyn AuditStore, before_all: Tip) -> Result<Tip, StoreError> {
    let first = store.audit_entries(0, 1).await?.into_iter().next().filter(|first| first.seq > 1);
    let behind = |first: StoredAuditEntry| {
        // What cannot be read is for whoever verifies to name.
        let prev = serde_json::from_str(&first.text).map_or(before_all.hash, |entry: Entry| entry.prev);
        Tip { seq: first.seq - 1, hash: prev }
    };
    Ok(first.map_or(before_all, behind))
}
