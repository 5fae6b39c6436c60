//! What a token allows: its scope, its limits and its end. The core's table decides what a scope may do.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::hash::MAX_KEY_BYTES;
use crate::id::Name;

/// The most buckets that a token may be limited to.
pub const MAX_LIMIT_BUCKETS: usize = 32;

/// What a token is for. Ordered: of two scopes that allow a verb, the earlier one allows less.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Scope {
    /// Reads in the tenant's buckets.
    ReadOnly,
    /// Reads and writes in the tenant's buckets.
    ReadWrite,
    /// Pushes plugins, and ends their quarantine.
    PluginAuthor,
    /// Everything in one tenant: data, buckets, plugins, tokens.
    TenantAdmin,
    /// Everything in every tenant, the tenants themselves, nodes and layouts.
    Operator,
}

impl Scope {
    /// All of them, in order.
    pub const ALL: [Self; 5] = [Self::ReadOnly, Self::ReadWrite, Self::PluginAuthor, Self::TenantAdmin, Self::Operator];

    /// Its name on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ReadOnly => "read-only",
            Self::ReadWrite => "read-write",
            Self::PluginAuthor => "plugin-author",
            Self::TenantAdmin => "tenant-admin",
            Self::Operator => "operator",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl core::str::FromStr for Scope {
    type Err = BadScope;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text).ok_or(BadScope)
    }
}

/// A text that is not a [`Scope`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a scope is read-only, read-write, plugin-author, tenant-admin or operator")]
pub struct BadScope;

/// The part of its tenant's data that a token opens. Without buckets and prefix: all.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug, Serialize, Deserialize)]
pub struct Limits {
    /// Only these buckets. Empty: every one.
    pub buckets: Vec<Name>,
    /// Only keys that begin with this. Empty: every key.
    pub prefix: Bytes,
}

impl Limits {
    /// Whether there are none.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.buckets.is_empty() && self.prefix.is_empty()
    }

    /// Whether a bucket is among those that the token opens.
    #[must_use]
    pub fn admit_bucket(&self, bucket: &Name) -> bool {
        self.buckets.is_empty() || self.buckets.contains(bucket)
    }

    /// Whether a key of a bucket is.
    #[must_use]
    pub fn admit(&self, bucket: &Name, key: &[u8]) -> bool {
        self.admit_bucket(bucket) && key.starts_with(&self.prefix)
    }
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.buckets.iter().map(Name::as_str).collect();
        if !names.is_empty() {
            write!(f, "buckets {}", names.join(", "))?;
        }
        if !self.prefix.is_empty() {
            let and = if names.is_empty() { "" } else { ", " };
            write!(f, "{and}keys that begin with {:?}", String::from_utf8_lossy(&self.prefix))?;
        }
        Ok(())
    }
}

/// What a token allows, and until when.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Grant {
    /// What it is for.
    pub scope: Scope,
    /// What of the tenant's data it opens.
    pub limits: Limits,
    /// When it ends, in milliseconds since 1970. `None`: when it is revoked.
    pub expires_ms: Option<u64>,
}

impl Grant {
    /// A grant without limits and end.
    #[must_use]
    pub fn of(scope: Scope) -> Self {
        Self { scope, limits: Limits::default(), expires_ms: None }
    }

    /// Checks the bounds of its limits.
    ///
    /// # Errors
    /// [`BadGrant`].
    pub fn check(&self) -> Result<(), BadGrant> {
        if !self.limits.is_none() && !matches!(self.scope, Scope::ReadOnly | Scope::ReadWrite) {
            return Err(BadGrant::Unlimited);
        }
        if self.limits.buckets.len() > MAX_LIMIT_BUCKETS {
            return Err(BadGrant::Buckets);
        }
        if self.limits.prefix.len() > MAX_KEY_BYTES {
            return Err(BadGrant::Prefix);
        }
        Ok(())
    }
}

impl From<Scope> for Grant {
    fn from(scope: Scope) -> Self {
        Self::of(scope)
    }
}

/// A grant that no token may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadGrant {
    /// Limits for a scope that could make itself a token without them.
    #[error("only read-only and read-write tokens can be limited to buckets and keys")]
    Unlimited,
    /// Too many buckets.
    #[error("a token is limited to at most {MAX_LIMIT_BUCKETS} buckets")]
    Buckets,
    /// Too long a prefix.
    #[error("a prefix has at most {MAX_KEY_BYTES} bytes, as a key")]
    Prefix,
}

/// The tenant of a new cluster. It cannot be deleted, and its tokens need not name it.
pub const DEFAULT_TENANT: &str = "default";

/// The most bytes of a token's text. Longer ones are refused without hashing them.
pub const MAX_TOKEN_BYTES: usize = 256;

/// The parts of a token's text.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenText<'a> {
    /// Its tenant.
    pub tenant: Name,
    /// Its name.
    pub name: Name,
    /// What only its user knows.
    pub secret: &'a str,
}

impl<'a> TokenText<'a> {
    /// Reads `tenant/name:secret`, or `name:secret` of the tenant `default`. `None` for anything else, and for more
    /// than [`MAX_TOKEN_BYTES`].
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        let (names, secret) = Some(text).filter(|text| text.len() <= MAX_TOKEN_BYTES)?.split_once(':')?;
        let (tenant, name) = names.split_once('/').unwrap_or((DEFAULT_TENANT, names));
        Some(Self { tenant: Name::new(tenant).ok()?, name: Name::new(name).ok()?, secret })
    }

    /// The text, which names the tenant unless that is `default`.
    #[must_use]
    pub fn to_text(&self) -> String {
        let Self { tenant, name, secret } = self;
        match tenant.as_str() {
            DEFAULT_TENANT => alloc::format!("{name}:{secret}"),
            tenant => alloc::format!("{tenant}/{name}:{secret}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_names_its_tenant_unless_that_is_the_default() {
        for (text, tenant, name) in [("app:s", "default", "app"), ("shop/app:s:t/u", "shop", "app")] {
            let parsed = TokenText::parse(text).expect("a token");
            assert_eq!((parsed.tenant.as_str(), parsed.name.as_str()), (tenant, name));
            assert_eq!(parsed.to_text(), text);
        }
        assert_eq!(TokenText::parse("default/app:s").expect("a token").to_text(), "app:s");
        let long = alloc::format!("app:{}", "s".repeat(MAX_TOKEN_BYTES));
        for none in ["", "app", "app/b", "/app:s", "a/b/c:s", "shop/:s", ":s", &long] {
            assert!(TokenText::parse(none).is_none(), "{none}");
        }
    }

    #[test]
    fn limits_bound_buckets_and_keys() {
        let name = |text: &str| Name::new(text).expect("a name");
        let limits = Limits { buckets: alloc::vec![name("cart")], prefix: Bytes::from_static(b"eu/") };
        assert!(limits.admit(&name("cart"), b"eu/alice") && limits.admit(&name("cart"), b"eu/"));
        for (bucket, key) in [("cart", &b"us/alice"[..]), ("cart", b"eu"), ("cart", b""), ("other", b"eu/alice")] {
            assert!(!limits.admit(&name(bucket), key), "{bucket} {key:?}");
        }
        assert!(Limits::default().admit(&name("any"), b"k"));
        let grant = |scope, limits| Grant { scope, limits, expires_ms: None };
        assert_eq!(grant(Scope::ReadWrite, limits.clone()).check(), Ok(()));
        // It could make itself a token without them.
        assert_eq!(grant(Scope::TenantAdmin, limits).check(), Err(BadGrant::Unlimited));
        let buckets = (0..=MAX_LIMIT_BUCKETS).map(|at| name(&alloc::format!("b{at}"))).collect();
        let many = Limits { buckets, ..Limits::default() };
        assert_eq!(grant(Scope::ReadOnly, many).check(), Err(BadGrant::Buckets));
        let long = Limits { prefix: alloc::vec![0; MAX_KEY_BYTES + 1].into(), ..Limits::default() };
        assert_eq!(grant(Scope::ReadOnly, long).check(), Err(BadGrant::Prefix));
    }
}
