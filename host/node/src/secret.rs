//! The cluster's secret, and its replacement by another one.
//!
//! From the secret come the key that seals contexts, the root token, the check by which nodes of a cluster know each
//! other, and the key of the hash trees. A file of a secret that was never replaced has just its bytes. Else it is
//! text:
//!
//! ```text
//! rejoin cluster secrets
//! use 3f2a…        seals contexts, and the root token comes from it
//! accept 91c0…     its contexts and its root token are accepted too
//! base 91c0…       the first secret of the cluster: for the check among nodes and the hash trees, and nothing else
//! ```
//!
//! Secrets stand there in hexadecimal. The base stays what it was: with another one nodes would take each other for
//! strangers, and every tree would have to be made anew.

use rejoin_core::exchange::hash::CausalKey;
use rejoin_proto::ClusterId;
use rejoin_proto::context::ContextKey;
use rejoin_proto::hex::hex;

use crate::token::derived_token;

/// The fewest bytes of a cluster's secret.
const MIN_SECRET_BYTES: usize = 16;
/// The first line of a file with several secrets.
const TITLE: &[u8] = b"rejoin cluster secrets";

/// A cluster's secret, the same on every node, and the one that it takes the place of. It is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    used: Vec<u8>,
    accepted: Option<Vec<u8>>,
    base: Vec<u8>,
}

/// A file that has no cluster's secret.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BadSecret {
    /// It is so short that it could be guessed.
    #[error(
        "it has fewer than {MIN_SECRET_BYTES} bytes, its line end not counted: give every node the file that `rejoin \
         cert ca` has made"
    )]
    Short,
    /// It begins as a file of several secrets, and is none.
    #[error("line {line} is not one of a file of secrets: give every node the file that `rejoin cert secret` has made")]
    Line {
        /// The number of the line, from 1.
        line: usize,
    },
    /// It begins as a file of several secrets, and lacks one.
    #[error("it has no line `{0}`: give every node the file that `rejoin cert secret` has made")]
    Lacks(&'static str),
    /// A secret was added before, and the replacement has not ended.
    #[error("it has a second secret already")]
    Replacing,
    /// There is no other one to be used.
    #[error("it has no second secret")]
    Alone,
}

impl Secret {
    /// The secret in a file with that content. One line end (`\n` or `\r\n`) at the end does not count: editors add it,
    /// `printf` does not.
    ///
    /// # Errors
    /// [`BadSecret`].
    pub fn from_file(content: &[u8]) -> Result<Self, BadSecret> {
        let text = without_line_end(content);
        let secret = match text.strip_prefix(TITLE).filter(|rest| rest.starts_with(b"\n") || rest.starts_with(b"\r\n"))
        {
            Some(_) => Self::from_lines(text)?,
            None => Self { used: text.to_vec(), accepted: None, base: text.to_vec() },
        };
        let all = [Some(&secret.used), secret.accepted.as_ref(), Some(&secret.base)];
        let is_long = all.into_iter().flatten().all(|secret| secret.len() >= MIN_SECRET_BYTES);
        if is_long { Ok(secret) } else { Err(BadSecret::Short) }
    }

    fn from_lines(text: &[u8]) -> Result<Self, BadSecret> {
        let (mut used, mut accepted, mut base) = (None, None, None);
        for (at, line) in text.split(|byte| *byte == b'\n').enumerate().skip(1) {
            let bad = BadSecret::Line { line: at + 1 };
            let line = std::str::from_utf8(line).map_err(|_| bad.clone())?.trim_end_matches('\r');
            let (key, value) = line.split_once(' ').ok_or_else(|| bad.clone())?;
            let value = unhex(value).ok_or_else(|| bad.clone())?;
            let place = match key {
                "use" => &mut used,
                "accept" => &mut accepted,
                "base" => &mut base,
                _ => return Err(bad),
            };
            if place.replace(value).is_some() {
                return Err(bad);
            }
        }
        let used = used.ok_or(BadSecret::Lacks("use"))?;
        Ok(Self { used, accepted, base: base.ok_or(BadSecret::Lacks("base"))? })
    }

    /// The content of its file.
    #[must_use]
    pub fn to_file(&self) -> String {
        let title = String::from_utf8_lossy(TITLE);
        let accepted = self.accepted.iter().map(|secret| format!("accept {}\n", hex(secret))).collect::<String>();
        format!("{title}\nuse {}\n{accepted}base {}\n", hex(&self.used), hex(&self.base))
    }

    /// The first step of a replacement: a new secret is accepted, and the one in use stays so.
    ///
    /// # Errors
    /// [`BadSecret::Replacing`], [`BadSecret::Short`].
    pub fn adding(&self, new: &[u8]) -> Result<Self, BadSecret> {
        if self.accepted.is_some() {
            return Err(BadSecret::Replacing);
        }
        if new.len() < MIN_SECRET_BYTES {
            return Err(BadSecret::Short);
        }
        Ok(Self { accepted: Some(new.to_vec()), ..self.clone() })
    }

    /// The second step: the other one of the two is used, and this one is still accepted.
    ///
    /// # Errors
    /// [`BadSecret::Alone`].
    pub fn using_the_other(&self) -> Result<Self, BadSecret> {
        let used = self.accepted.clone().ok_or(BadSecret::Alone)?;
        Ok(Self { used, accepted: Some(self.used.clone()), base: self.base.clone() })
    }

    /// The last step: what comes from the other secret is not accepted any more.
    #[must_use]
    pub fn without_others(&self) -> Self {
        Self { accepted: None, ..self.clone() }
    }

    /// The root token.
    #[must_use]
    pub fn root_token(&self) -> String {
        derived_token(&self.used)
    }

    /// The root tokens that are accepted.
    pub(crate) fn root_tokens(&self) -> impl Iterator<Item = String> + '_ {
        std::iter::once(&self.used).chain(&self.accepted).map(|secret| derived_token(secret))
    }

    /// A check value: equal on two nodes of a cluster exactly if their secrets began as one. It reveals nothing else.
    #[must_use]
    pub fn key_check(&self, cluster: ClusterId) -> u64 {
        let check = blake3::derive_key("rejoin 2026 secret key check", &of_cluster(cluster, &self.base));
        u64::from_le_bytes(std::array::from_fn(|at| check[at]))
    }

    /// The key that seals contexts. It depends on the cluster's id too, so that clusters with the same secret do not
    /// accept each other's contexts.
    pub(crate) fn context_key(&self, cluster: ClusterId) -> ContextKey {
        let key = |secret: &[u8]| ContextKey::of_secret(&of_cluster(cluster, secret));
        let used = key(&self.used);
        match &self.accepted {
            Some(accepted) => used.accepting(&key(accepted)),
            None => used,
        }
    }

    /// The key of causal hashes. It is secret, so that no client can choose values whose hashes cancel out.
    pub(crate) fn causal_key(&self, cluster: ClusterId) -> CausalKey {
        CausalKey::derive(&of_cluster(cluster, &self.base))
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

fn of_cluster(cluster: ClusterId, secret: &[u8]) -> Vec<u8> {
    [&cluster.0.to_le_bytes()[..], secret].concat()
}

pub(crate) fn without_line_end(content: &[u8]) -> &[u8] {
    let line = content.strip_suffix(b"\n").unwrap_or(content);
    if line.len() < content.len() { line.strip_suffix(b"\r").unwrap_or(line) } else { line }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let is_hex = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_hex || !text.len().is_multiple_of(2) {
        return None;
    }
    text.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::root_token;
    use rejoin_proto::{BucketId, ObjectId, TenantId, VersionVector};

    const FIRST: &[u8] = b"0123456789abcdef\n";
    const SECOND: &[u8] = b"another secret of the cluster";

    fn object() -> ObjectId {
        ObjectId { tenant: TenantId(1), bucket: BucketId(2), key: "k".into() }
    }

    /// What this one has sealed, and what it opens of another one.
    fn opens(this: &Secret, other: &Secret) -> bool {
        let token = other.context_key(ClusterId(1)).seal(&object(), &VersionVector::new());
        this.context_key(ClusterId(1)).open(&object(), &token).is_ok()
    }

    #[test]
    fn a_line_end_is_no_part_of_a_secret() {
        let text = "0123456789abcdef";
        let secret = |content: String| Secret::from_file(content.as_bytes());
        let plain = secret(text.into()).unwrap();
        for end in ["\n", "\r\n"] {
            let ended = secret(format!("{text}{end}")).unwrap();
            assert_eq!(ended, plain);
            assert_eq!(root_token(format!("{text}{end}").as_bytes()), plain.root_token());
            assert_eq!(ended.key_check(ClusterId(1)), plain.key_check(ClusterId(1)));
        }
        for other in ["\n\n", "\r", " ", "\n\r"] {
            let other = secret(format!("{text}{other}")).unwrap();
            assert!(other != plain && other.key_check(ClusterId(1)) != plain.key_check(ClusterId(1)));
        }
        assert_ne!(plain.key_check(ClusterId(1)), plain.key_check(ClusterId(2)));
        assert_eq!(secret(format!("{}\n", &text[1..])), Err(BadSecret::Short));
        assert!(!format!("{plain:?}").contains(text));
    }

    #[test]
    fn clusters_with_one_secret_do_not_take_each_others_contexts() {
        let secret = Secret::from_file(FIRST).unwrap();
        let token = secret.context_key(ClusterId(1)).seal(&object(), &VersionVector::new());
        assert!(secret.context_key(ClusterId(1)).open(&object(), &token).is_ok());
        assert!(secret.context_key(ClusterId(2)).open(&object(), &token).is_err());
    }

    #[test]
    fn two_nodes_that_are_one_step_apart_take_each_others_contexts_and_root_tokens() {
        let first = Secret::from_file(FIRST).unwrap();
        let added = first.adding(SECOND).unwrap();
        let used = added.using_the_other().unwrap();
        let retired = used.without_others();
        let steps = [&first, &added, &used, &retired];
        for pair in steps.windows(2) {
            let [a, b] = pair else { panic!("a pair") };
            assert!(opens(a, b) && opens(b, a), "what either of them has sealed");
            for (one, other) in [(a, b), (b, a)] {
                assert!(one.root_tokens().any(|token| token == other.root_token()));
            }
        }
        // Over two steps they do not: so every node takes one step before any takes the next one.
        assert!(!opens(&first, &used) && !opens(&retired, &first));
        assert!(!retired.root_tokens().any(|token| token == first.root_token()));
        // Nodes know each other throughout, and the hash trees stay.
        for step in steps {
            assert_eq!(step.key_check(ClusterId(7)), first.key_check(ClusterId(7)));
            let file = step.to_file();
            assert_eq!(Secret::from_file(file.as_bytes()).as_ref(), Ok(step));
            assert_eq!(Secret::from_file(file.replace('\n', "\r\n").as_bytes()).as_ref(), Ok(step));
        }
        assert_eq!(used.using_the_other().as_ref(), Ok(&added), "a step back");
        // And the next replacement begins where this one has ended.
        let again = retired.adding(b"a third secret of the cluster").unwrap();
        assert!(opens(&again, &retired) && opens(&retired, &again));
    }

    #[test]
    fn steps_that_do_not_follow_and_files_that_are_none_are_refused() {
        let first = Secret::from_file(FIRST).unwrap();
        assert_eq!(first.using_the_other(), Err(BadSecret::Alone));
        assert_eq!(first.adding(b"short"), Err(BadSecret::Short));
        let added = first.adding(SECOND).unwrap();
        assert_eq!(added.adding(SECOND), Err(BadSecret::Replacing));
        let file = added.to_file();
        for (change, expected) in [
            (file.replace("use ", "uses "), BadSecret::Line { line: 2 }),
            (file.replace("accept ", "use "), BadSecret::Line { line: 3 }),
            (file.replace("base ", "base x"), BadSecret::Line { line: 4 }),
            (format!("{file}\n"), BadSecret::Line { line: 5 }),
            (file.lines().take(3).map(|line| format!("{line}\n")).collect(), BadSecret::Lacks("base")),
            ("rejoin cluster secrets\nbase 00\n".into(), BadSecret::Lacks("use")),
            ("rejoin cluster secrets\nuse 00\nbase 00\n".into(), BadSecret::Short),
        ] {
            assert_eq!(Secret::from_file(change.as_bytes()), Err(expected), "{change}");
        }
    }
}
