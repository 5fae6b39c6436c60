//! Changes of tokens: made, rotated, revoked.

use alloc::string::ToString;

use rejoin_proto::access::{Grant, Scope};
use rejoin_proto::catalog::{OldSecret, Record, RecordBody, RecordKey};
use rejoin_proto::{ErrorCode, ErrorReply, Hlc, Name, TenantId};

use super::Control;
use super::decide::absent;
use crate::access::may_grant;

/// A change of one token.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TokenChange {
    /// Makes it, or makes it anew after it was revoked, with the hash of its secret.
    Create(Grant, [u8; 32]),
    /// Gives it another secret, of which this is the hash. The old one is taken for so many milliseconds.
    Rotate([u8; 32], u64),
    /// Ends it.
    Revoke,
    /// Ends it, and every certificate of its name, for good. There need not be a token.
    Bar,
}

/// What the catalog has under the name of a token.
struct Known<'a> {
    version: u64,
    grant: &'a Grant,
    secret_hash: &'a [u8; 32],
    revoked: bool,
    barred: bool,
}

impl Control {
    /// The record that a change makes, asked for with a token of the scope `by`.
    pub(super) fn changed_token(
        &self,
        stamp: Hlc,
        (tenant, name): (TenantId, Name),
        by: Scope,
        change: TokenChange,
    ) -> Result<Record, ErrorReply> {
        // Rule: tokens are of their tenant.
        let key = RecordKey::Token(tenant, name.clone());
        let known = match self.records.get(&key) {
            Some(Record { version, body: RecordBody::Token { grant, secret_hash, revoked, barred, .. }, .. }) => {
                Some(Known { version: *version, grant, secret_hash, revoked: *revoked, barred: *barred })
            }
            _ => None,
        };
        // Whoever could rotate an operator's token would have one.
        let may = |of: Scope| if may_grant(by, of) { Ok(()) } else { Err(denied(&name, of)) };
        let (version, body) = match (change, known) {
            (TokenChange::Create(..), Some(Known { barred: true, .. })) => {
                let message =
                    alloc::format!("{name} was the name of a certificate that is revoked: choose another name");
                return Err(ErrorReply::new(ErrorCode::Exists, message));
            }
            (TokenChange::Create(..), Some(Known { revoked: false, .. })) => {
                return Err(ErrorReply::new(ErrorCode::Exists, alloc::format!("there is a token {name} already")));
            }
            (TokenChange::Create(grant, secret_hash), known) => {
                may(grant.scope)?;
                grant.check().map_err(|bad| ErrorReply::new(ErrorCode::BadRequest, bad.to_string()))?;
                let version = known.map_or(1, |known| known.version + 1);
                (version, RecordBody::Token { grant, secret_hash, before: None, revoked: false, barred: false })
            }
            (TokenChange::Bar, None) => {
                may(Scope::ReadOnly)?;
                let grant = Grant::of(Scope::ReadOnly);
                (1, RecordBody::Token { grant, secret_hash: [0; 32], before: None, revoked: true, barred: true })
            }
            (_, None) | (TokenChange::Rotate(..), Some(Known { revoked: true, .. })) => {
                return Err(absent("token", &name));
            }
            (TokenChange::Rotate(secret_hash, overlap_ms), Some(Known { version, grant, secret_hash: hash, .. })) => {
                may(grant.scope)?;
                // Of three secrets the oldest ends at once.
                let until_ms = stamp.ms().saturating_add(overlap_ms);
                let before = (overlap_ms > 0).then_some(OldSecret { hash: *hash, until_ms });
                let grant = grant.clone();
                (version + 1, RecordBody::Token { grant, secret_hash, before, revoked: false, barred: false })
            }
            (change @ (TokenChange::Revoke | TokenChange::Bar), Some(known)) => {
                may(known.grant.scope)?;
                let barred = known.barred || change == TokenChange::Bar;
                // Withdrawing it again changes nothing, and must not race with who makes it anew.
                if known.revoked && known.barred == barred {
                    return self.records.get(&key).cloned().ok_or_else(|| absent("token", &name));
                }
                let (grant, secret_hash, version) = (known.grant.clone(), *known.secret_hash, known.version);
                (version + 1, RecordBody::Token { grant, secret_hash, before: None, revoked: true, barred })
            }
        };
        Ok(Record { key, version, stamp, body })
    }
}

fn denied(name: &Name, of: Scope) -> ErrorReply {
    let message = alloc::format!(
        "{name} is a token of scope {of}: to make, rotate or revoke it takes a token of scope {}",
        Scope::ALL.into_iter().find(|by| may_grant(*by, of)).unwrap_or(Scope::Operator)
    );
    ErrorReply::new(ErrorCode::Denied, message)
}
