//! The keys that seal rows.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use ring::aead::{AES_256_GCM, LessSafeKey, UnboundKey};
use ring::hkdf::{HKDF_SHA256, KeyType, Salt};

/// What a key's id is derived for.
const ID_OF: &[u8] = b"rejoin 2026 id of an encryption key";
/// What the key of a start's rows is derived for.
const ROWS_OF: &[u8] = b"rejoin 2026 key of rows";

/// The id of a key: four bytes that are derived from it and tell nothing else of it. So no key can have another one's
/// name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct KeyId(pub u32);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl FromStr for KeyId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_hex = text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let id = if is_hex { u32::from_str_radix(text, 16).ok() } else { None };
        id.map(Self).ok_or_else(|| format!("{text:?} is no key's id: it has eight hexadecimal digits"))
    }
}

/// A key of 256 bits. It is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    id: KeyId,
    secret: [u8; 32],
}

impl Key {
    /// The key with these bytes, which must be drawn at random.
    #[must_use]
    pub fn new(secret: [u8; 32]) -> Self {
        let mut id = [0; 4];
        derive(&secret, &[], ID_OF, &mut id);
        Self { id: KeyId(u32::from_be_bytes(id)), secret }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// Its bytes, to be kept in a file of keys.
    #[must_use]
    pub fn secret(&self) -> &[u8; 32] {
        &self.secret
    }

    /// The key of all rows with this salt.
    pub(super) fn of_rows(&self, salt: &[u8]) -> LessSafeKey {
        let mut bytes = [0; 32];
        derive(&self.secret, salt, ROWS_OF, &mut bytes);
        LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &bytes).expect("a key of AES-256 has 32 bytes"))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.id)
    }
}

/// HKDF with SHA-256 (RFC 5869).
fn derive(secret: &[u8], salt: &[u8], info: &[u8], out: &mut [u8]) {
    struct Length(usize);
    impl KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    let derived = Salt::new(HKDF_SHA256, salt).extract(secret);
    let filled = derived.expand(&[info], Length(out.len())).and_then(|okm| okm.fill(out));
    filled.expect("HKDF gives up to 8160 bytes");
}

/// The keys of a node: one that seals, or none, and others whose rows can be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Keys {
    keys: BTreeMap<KeyId, Key>,
    used: Option<KeyId>,
}

impl Keys {
    /// Rows are sealed with `used`, and those of `others` can be read.
    #[must_use]
    pub fn new(used: Key, others: impl IntoIterator<Item = Key>) -> Self {
        let id = used.id;
        let keys = others.into_iter().chain([used]).map(|key| (key.id, key)).collect();
        Self { keys, used: Some(id) }
    }

    /// Rows are written in the clear, and those of these keys can be read.
    #[must_use]
    pub fn to_read(keys: impl IntoIterator<Item = Key>) -> Self {
        Self { keys: keys.into_iter().map(|key| (key.id, key)).collect(), used: None }
    }

    /// The key that seals; `None` if rows are written in the clear.
    #[must_use]
    pub fn used(&self) -> Option<KeyId> {
        self.used
    }

    /// The ids of all keys, in order.
    pub fn ids(&self) -> impl Iterator<Item = KeyId> + '_ {
        self.keys.keys().copied()
    }

    pub(super) fn get(&self, id: KeyId) -> Option<&Key> {
        self.keys.get(&id)
    }

    pub(crate) fn has(&self, id: KeyId) -> bool {
        self.keys.contains_key(&id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_follows_from_its_key_and_nothing_prints_the_key() {
        let (one, two) = (Key::new([1; 32]), Key::new([2; 32]));
        assert_eq!(one.id(), Key::new([1; 32]).id());
        assert_ne!(one.id(), two.id());
        assert_eq!(one.id().to_string().parse(), Ok(one.id()));
        assert!("3f2a91c".parse::<KeyId>().is_err() && "+f2a91c0".parse::<KeyId>().is_err());
        let shown = format!("{:?} {one:?}", Keys::new(one.clone(), [two]));
        assert!(!shown.contains("1, 1") && shown.contains(&one.id().to_string()), "{shown}");
    }
}
