//! Who asks: the token or certificate of a connection, and the tenant that its requests are about. The core's table
//! decides what they may do.

use std::time::Duration;

use rejoin_core::access::{Denial, Verb, Whose, allows, authorise};
use rejoin_core::view::ClusterView;
use rejoin_proto::access::Scope;
use rejoin_proto::client::RequestBody;
use rejoin_proto::{ErrorCode, ErrorReply, Name, TenantId};
use rejoin_wire::{Connection, Role};

use crate::sessions::TokenKey;
use crate::token::{Certificate, Principal, Tokens};
use crate::view::NodeView;

/// The longest that a connection waits to look at its token's end again: the wall clock may be set meanwhile.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// What a client shows to be let in.
#[derive(Clone)]
pub(crate) enum Proof {
    /// The text of a token.
    Token(String),
    /// The certificate of its connection.
    Certificate(Certificate),
}

impl Proof {
    /// What a client has shown. A certificate of a tenant is all that counts then: what a message says beside it could
    /// only contradict it.
    ///
    /// # Errors
    /// There is a token beside it.
    pub(crate) fn of(connection: &Connection, token: String) -> Result<Self, ErrorReply> {
        let Some(Role::Tenant { tenant, scope, name }) = connection.subject().map(|subject| subject.role.clone())
        else {
            return Ok(Self::Token(token));
        };
        if !token.is_empty() {
            let message = format!(
                "the client shows certificate {name} of tenant {tenant} and a token; leave one of them out of the profile"
            );
            return Err(ErrorReply::new(ErrorCode::Denied, message));
        }
        let valid = connection.certificate_validity();
        let until_ms = valid.map_or(0, |valid| valid.until.saturating_mul(1_000));
        let issued_ms = valid.map_or(0, |valid| valid.issued().saturating_mul(1_000));
        Ok(Self::Certificate(Certificate { tenant, scope, name, issued_ms, until_ms }))
    }

    /// Its owner, if it is valid.
    pub(crate) fn check(&self, tokens: &Tokens, now_ms: u64) -> Option<Principal> {
        match self {
            Self::Token(token) => tokens.check(token, now_ms),
            Self::Certificate(certificate) => tokens.certified(certificate, now_ms),
        }
    }
}

/// The client of a connection.
#[derive(Clone)]
pub(crate) struct Caller {
    proof: Proof,
    pub(crate) principal: Principal,
    /// The tenant that its requests are about.
    pub(crate) tenant: TenantId,
    pub(crate) tenant_name: Name,
}

impl Caller {
    /// The owner of a token who opens that tenant, or that of the token.
    ///
    /// # Errors
    /// It may not, or there is no such tenant.
    pub(crate) fn new(
        proof: Proof,
        principal: Principal,
        named: Option<Name>,
        view: &ClusterView,
    ) -> Result<Self, ErrorReply> {
        let tenant = named.as_ref().map_or(principal.tenant, |name| view.tenant_named(name));
        let whose = whose(&principal, tenant);
        if !Verb::ALL.into_iter().any(|verb| allows(principal.grant.scope, verb, whose)) {
            // Whether there is such a tenant is not told.
            return Err(denied(&principal, &Denial::Scope { verb: Verb::Read, whose }));
        }
        // Whatever its scope is. An operator of another tenant may look at what is deleted.
        if view.is_deleted(principal.tenant) {
            let message = "the tenant was deleted; until it is reaped an operator can restore it";
            return Err(ErrorReply::new(ErrorCode::Denied, message));
        }
        let Some(tenant_name) = view.tenant_name(tenant).cloned() else {
            let named = named.map_or_else(|| tenant.to_string(), |name| name.to_string());
            let message = format!("there is no tenant {named}: `rejoin tenant create {named}` makes it");
            return Err(ErrorReply::new(ErrorCode::NotFound, message));
        };
        Ok(Self { proof, principal, tenant, tenant_name })
    }

    pub(crate) fn scope(&self) -> Scope {
        self.principal.grant.scope
    }

    /// Whether it shows a certificate and not a token.
    pub(crate) fn is_certified(&self) -> bool {
        matches!(self.proof, Proof::Certificate(_))
    }

    /// By what its sessions are counted.
    pub(crate) fn token_key(&self) -> TokenKey {
        (self.principal.tenant, self.principal.name.clone())
    }

    /// Decides about a request.
    ///
    /// # Errors
    /// It is denied.
    pub(crate) fn authorise(&self, request: &RequestBody) -> Result<(), ErrorReply> {
        let decided = authorise(&self.principal.grant, whose(&self.principal, self.tenant), request);
        decided.map_err(|denial| denied(&self.principal, &denial))
    }

    /// How long it may be until the token has to be checked again, if it ends by itself.
    pub(crate) fn ends_in(&self, now_ms: u64) -> Option<Duration> {
        let until_ms = self.principal.until_ms?;
        Some(Duration::from_millis(until_ms.saturating_sub(now_ms)).min(LONGEST_WAIT))
    }

    /// Checks the token against the present catalog.
    ///
    /// # Errors
    /// Why the connection ends.
    pub(crate) fn check_again(&mut self, view: &NodeView, now_ms: u64) -> Result<(), &'static str> {
        let principal = self.proof.check(&view.tokens, now_ms).ok_or("the token was revoked or has expired")?;
        *self = Self::new(self.proof.clone(), principal, Some(self.tenant_name.clone()), &view.cluster)
            .map_err(|_| "the token does not open the tenant any more")?;
        Ok(())
    }
}

fn whose(principal: &Principal, tenant: TenantId) -> Whose {
    if tenant == principal.tenant { Whose::Own } else { Whose::Other }
}

fn denied(principal: &Principal, denial: &Denial) -> ErrorReply {
    let Principal { name, grant, .. } = principal;
    ErrorReply::new(ErrorCode::Denied, format!("token {name} ({}) {denial}", grant.scope))
}
