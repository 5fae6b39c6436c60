//! A sealed row.
//!
//! ```text
//! ff ‖ 01 ‖ key id u32 ‖ salt 16 bytes ‖ number u64 ‖ AES-256-GCM of the row ‖ tag 16 bytes
//! ```
//! Little endian but for the id. The associated data is all that stands in front of the encrypted row, and the row's
//! key. So a row opens only where it was written, and a changed byte is noticed.
//!
//! No plain row begins with `ff`: it would be the version of its encoding.
//!
//! A nonce must never be used twice with one key. Random ones of 96 bits may repeat after some 2³² rows. So each start
//! draws a salt of 128 bits from the operating system, derives a key of its own from that and the node's key, and
//! numbers the rows that it seals with it. Nothing has to be remembered from start to start: not after a kill, and not
//! when an old copy of the directory is started beside this one.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use ring::aead::{Aad, LessSafeKey, NONCE_LEN, Nonce};
use ring::rand::{SecureRandom as _, SystemRandom};
use smallvec::SmallVec;

use super::keys::{KeyId, Keys};

/// The first byte of a sealed row.
const SEALED: u8 = 0xff;
/// The second one: the form of what follows.
const FORM: u8 = 1;
const KEY: Range<usize> = 2..6;
const SALT: Range<usize> = 6..22;
const NUMBER: Range<usize> = 22..30;
const HEAD: usize = 30;
const TAG: usize = 16;
/// Keys of rows that are kept derived. There is one for each start whose rows are still there.
const MAX_DERIVED: usize = 256;

/// Whether a row is sealed, or claims to be.
pub(crate) fn is_sealed(row: &[u8]) -> bool {
    row.first() == Some(&SEALED)
}

/// Why a row could not be opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Unopened {
    #[error("a row is sealed with key {0}, which this node does not have")]
    OtherKey(KeyId),
    #[error("a sealed row was altered, or stands under another key than it was written for")]
    Altered,
    #[error("a row is in the clear, although all rows were sealed")]
    Plain,
}

/// Seals and opens the rows of one shard.
pub(crate) struct Sealer {
    keys: Arc<Keys>,
    /// `None`: rows are written in the clear.
    own: Option<OwnKey>,
    derived: RwLock<DerivedKeys>,
}

/// Keys of rows, by the key and the salt that they are derived from.
type DerivedKeys = BTreeMap<(KeyId, [u8; 16]), Arc<LessSafeKey>>;

/// The key that this start seals with.
struct OwnKey {
    /// Everything in front of a row's number.
    head: [u8; NUMBER.start],
    key: LessSafeKey,
    /// The number of the next row.
    next: AtomicU64,
}

impl Sealer {
    /// Draws a salt for this start.
    ///
    /// # Errors
    /// The operating system has no random bytes.
    pub(crate) fn new(keys: Arc<Keys>) -> io::Result<Self> {
        let own = match keys.used().and_then(|id| keys.get(id)) {
            None => None,
            Some(key) => {
                let mut head = [0; NUMBER.start];
                (head[0], head[1]) = (SEALED, FORM);
                head[KEY].copy_from_slice(&key.id().0.to_be_bytes());
                let drawn = SystemRandom::new().fill(&mut head[SALT]);
                drawn.map_err(|_| io::Error::other("the operating system has no random bytes"))?;
                Some(OwnKey { key: key.of_rows(&head[SALT]), head, next: AtomicU64::new(0) })
            }
        };
        Ok(Self { keys, own, derived: RwLock::default() })
    }

    /// The key that seals; `None` if rows are written in the clear.
    pub(crate) fn used(&self) -> Option<KeyId> {
        self.keys.used()
    }

    /// The row under this key as it is to be written.
    pub(crate) fn seal(&self, key: &[u8], row: Bytes) -> Bytes {
        let Some(own) = &self.own else { return row };
        let mut sealed = Vec::with_capacity(HEAD + row.len() + TAG);
        sealed.extend_from_slice(&own.head);
        // A start that seals a billion rows each second needs five centuries to come to the end.
        sealed.extend_from_slice(&own.next.fetch_add(1, Relaxed).to_le_bytes());
        sealed.extend_from_slice(&row);
        let (head, text) = sealed.split_at_mut(HEAD);
        let tag = own.key.seal_in_place_separate_tag(nonce(head), Aad::from(bound(head, key)), text);
        let tag = tag.expect("AES-256-GCM seals up to 64 GiB");
        sealed.extend_from_slice(tag.as_ref());
        sealed.into()
    }

    /// Opens a row that was read under this key. A row in the clear is returned as it is.
    ///
    /// # Errors
    /// [`Unopened`], never [`Unopened::Plain`].
    pub(crate) fn open(&self, key: &[u8], row: Bytes) -> Result<Bytes, Unopened> {
        if !is_sealed(&row) {
            return Ok(row);
        }
        if row.len() < HEAD + TAG || row[1] != FORM {
            return Err(Unopened::Altered);
        }
        let derived = self.derived(&row[..HEAD])?;
        let bound = bound(&row[..HEAD], key);
        let mut text = row[HEAD..].to_vec();
        let opened = derived.open_in_place(nonce(&row[..HEAD]), Aad::from(bound), &mut text);
        let length = opened.map_err(|_| Unopened::Altered)?.len();
        text.truncate(length);
        Ok(text.into())
    }

    /// Whether a row that was read is sealed with the key in use, or in the clear if none is.
    pub(crate) fn is_current(&self, row: &[u8]) -> bool {
        match &self.own {
            None => !is_sealed(row),
            Some(own) => row.get(..KEY.end) == Some(&own.head[..KEY.end]),
        }
    }

    fn derived(&self, head: &[u8]) -> Result<Arc<LessSafeKey>, Unopened> {
        let (mut id, mut salt) = ([0; 4], [0; 16]);
        id.copy_from_slice(&head[KEY]);
        salt.copy_from_slice(&head[SALT]);
        let id = KeyId(u32::from_be_bytes(id));
        if let Some(found) = self.derived.read().unwrap_or_else(PoisonError::into_inner).get(&(id, salt)) {
            return Ok(Arc::clone(found));
        }
        let derived = Arc::new(self.keys.get(id).ok_or(Unopened::OtherKey(id))?.of_rows(&salt));
        let mut known = self.derived.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_DERIVED {
            known.clear();
        }
        known.insert((id, salt), Arc::clone(&derived));
        Ok(derived)
    }
}

/// The nonce of a row, from its number.
fn nonce(head: &[u8]) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce[NONCE_LEN - 8..].copy_from_slice(&head[NUMBER]);
    Nonce::assume_unique_for_key(nonce)
}

/// The associated data.
fn bound(head: &[u8], key: &[u8]) -> SmallVec<[u8; 256]> {
    let mut bound = SmallVec::with_capacity(head.len() + key.len());
    bound.extend_from_slice(head);
    bound.extend_from_slice(key);
    bound
}

#[cfg(test)]
mod tests {
    use super::super::keys::Key;
    use super::*;

    fn sealer(used: u8, others: &[u8]) -> Sealer {
        let key = |byte: u8| Key::new([byte; 32]);
        Sealer::new(Arc::new(Keys::new(key(used), others.iter().map(|other| key(*other))))).expect("random bytes")
    }

    #[test]
    fn a_row_opens_where_it_was_sealed_and_nowhere_else() {
        let this = sealer(1, &[]);
        for length in [0, 1, 100, 70_000] {
            let row = Bytes::from(vec![b'v'; length]);
            let sealed = this.seal(b"key", row.clone());
            assert_eq!(sealed.len(), length + HEAD + TAG);
            assert!(is_sealed(&sealed) && this.is_current(&sealed) && !this.is_current(&row));
            assert_eq!(this.open(b"key", sealed.clone()), Ok(row.clone()));
            assert_eq!(this.open(b"kez", sealed.clone()), Err(Unopened::Altered));
            let next = sealer(2, &[1]);
            assert_eq!(next.open(b"key", sealed.clone()), Ok(row.clone()));
            assert!(!next.is_current(&sealed));
            assert!(matches!(sealer(2, &[]).open(b"key", sealed), Err(Unopened::OtherKey(_))));
        }
        assert_eq!(this.open(b"key", "plain".into()), Ok("plain".into()));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let this = sealer(1, &[2]);
        let sealed = this.seal(b"key", "value".into());
        for bit in 8..sealed.len() * 8 {
            let mut bytes = sealed.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(this.open(b"key", bytes.into()).is_err(), "bit {bit}");
        }
        for length in 1..sealed.len() {
            assert_eq!(this.open(b"key", sealed.slice(..length)), Err(Unopened::Altered), "{length} bytes");
        }
    }

    #[test]
    fn no_two_rows_have_one_nonce_under_one_key() {
        let (this, other) = (sealer(1, &[]), sealer(1, &[]));
        let heads: Vec<Bytes> =
            (0..100).flat_map(|_| [&this, &other]).map(|by| by.seal(b"key", "v".into()).slice(..HEAD)).collect();
        let mut all = heads.clone();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), heads.len());
        assert_ne!(heads[0][SALT], heads[1][SALT], "each start has a salt of its own");
        let again = this.seal(b"key", "v".into());
        assert_ne!(again[HEAD..], this.seal(b"key", "v".into())[HEAD..]);
    }

    #[test]
    fn derived_keys_are_bounded() {
        let reader = sealer(1, &[]);
        for _ in 0..MAX_DERIVED + 10 {
            assert_eq!(reader.open(b"k", sealer(1, &[]).seal(b"k", "v".into())), Ok("v".into()));
        }
        assert!(reader.derived.read().expect("sound").len() <= MAX_DERIVED);
    }
}
