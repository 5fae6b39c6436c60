//! Tokens, as `--json` and the table of `token list` show them.

use serde::Serialize;

use rejoin_client::admin::{Grant, Name, TokenStatus};

/// `token list`, and with its text `token create` and `token root`.
#[derive(Serialize, Debug)]
pub(crate) struct Token {
    name: String,
    scope: &'static str,
    /// The buckets that it is limited to; empty: all.
    buckets: Vec<String>,
    /// What its keys begin with; null: anything.
    prefix: Option<String>,
    expires_ms: Option<u64>,
    revoked: bool,
    /// Until when the secret before its last rotation is taken too.
    #[serde(skip_serializing_if = "Option::is_none")]
    rotating_until_ms: Option<u64>,
    /// When it was last used, as far as the nodes that answered know since they started.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_used_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    /// For people.
    #[serde(skip)]
    limits: String,
}

impl Token {
    fn new(name: &str, grant: &Grant) -> Self {
        let prefix = &grant.limits.prefix;
        Self {
            name: name.into(),
            scope: grant.scope.as_str(),
            buckets: grant.limits.buckets.iter().map(Name::to_string).collect(),
            prefix: (!prefix.is_empty()).then(|| String::from_utf8_lossy(prefix).into_owned()),
            expires_ms: grant.expires_ms,
            revoked: false,
            rotating_until_ms: None,
            last_used_ms: None,
            token: None,
            limits: grant.limits.to_string(),
        }
    }

    /// One that was just made, with its text.
    pub(crate) fn made(name: &str, grant: &Grant, text: &str) -> Self {
        Self { token: Some(text.into()), ..Self::new(name, grant) }
    }

    /// One of a list.
    pub(crate) fn listed(token: &TokenStatus, now_ms: u64) -> Self {
        let rotating_until_ms = token.rotating_until_ms.filter(|until_ms| now_ms < *until_ms);
        let (revoked, last_used_ms) = (token.revoked, token.last_used_ms);
        Self { revoked, rotating_until_ms, last_used_ms, ..Self::new(token.name.as_str(), &token.grant) }
    }

    /// Its row of the table.
    pub(crate) fn row(&self, now_ms: u64) -> Vec<String> {
        let left = |until_ms: u64| span(until_ms.saturating_sub(now_ms));
        let state = match (self.revoked, self.expires_ms, self.rotating_until_ms) {
            (true, ..) => "revoked".to_owned(),
            (_, Some(until_ms), _) if until_ms <= now_ms => "expired".to_owned(),
            (_, _, Some(until_ms)) => format!("valid, its old secret for {}", left(until_ms)),
            (_, Some(until_ms), _) => format!("valid for {}", left(until_ms)),
            _ => "valid".to_owned(),
        };
        let used = self.last_used_ms.map(|used_ms| format!("{} ago", span(now_ms.saturating_sub(used_ms))));
        let limits = if self.limits.is_empty() { "-".to_owned() } else { self.limits.clone() };
        vec![self.name.clone(), self.scope.into(), limits, state, used.unwrap_or_else(|| "-".into())]
    }
}

/// A length of time for people, in its largest unit.
fn span(ms: u64) -> String {
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    let unit = units.into_iter().find(|(unit_ms, _)| ms >= *unit_ms).unwrap_or((1_000, "s"));
    format!("{} {}", ms / unit.0, unit.1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rejoin_client::admin::{Limits, Scope};

    fn status(revoked: bool, expires_ms: Option<u64>, rotating_until_ms: Option<u64>) -> TokenStatus {
        let limits = Limits { buckets: vec![Name::new("cart").unwrap()], prefix: "eu/".into() };
        let grant = Grant { scope: Scope::ReadOnly, limits, expires_ms };
        let (name, last_used_ms) = (Name::new("app").unwrap(), Some(4_000));
        TokenStatus { name, grant, rotating_until_ms, revoked, last_used_ms }
    }

    #[test]
    fn a_row_says_what_a_token_opens_how_long_and_when_it_was_used() {
        let row = |status: &TokenStatus| Token::listed(status, 100_000).row(100_000);
        let valid = row(&status(false, None, None));
        assert_eq!(valid, ["app", "read-only", "buckets cart, keys that begin with \"eu/\"", "valid", "1 m ago"]);
        assert_eq!(row(&status(true, None, None))[3], "revoked");
        assert_eq!(row(&status(false, Some(100_000), None))[3], "expired");
        assert_eq!(row(&status(false, Some(7_300_000), None))[3], "valid for 2 h");
        assert_eq!(row(&status(false, None, Some(130_000)))[3], "valid, its old secret for 30 s");
    }

    #[test]
    fn a_listed_token_has_no_text() {
        let keys = |token: &Token| {
            let shown = serde_json::to_value(token).unwrap();
            shown.as_object().unwrap().keys().cloned().collect::<Vec<_>>()
        };
        let listed = Token::listed(&status(false, None, None), 100_000);
        assert!(!keys(&listed).contains(&"token".to_owned()));
        let made = Token::made("app", &Grant::of(Scope::ReadWrite), "app:s3cret");
        assert_eq!(keys(&made), ["buckets", "expires_ms", "name", "prefix", "revoked", "scope", "token"]);
    }
}
