//! The name in a certificate.

use std::fmt;

use rejoin_proto::access::Scope;
use rejoin_proto::{ClusterId, Name};

/// What the owner of a certificate may act as.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Role {
    /// The authority itself.
    Authority,
    /// A node of that name.
    Node(Name),
    /// A client of that name, which shows a token.
    Client(Name),
    /// A client that shows no token: its certificate says whose it is and what for.
    Tenant {
        /// The tenant that it belongs to.
        tenant: Name,
        /// What it may do there.
        scope: Scope,
        /// Its name among the tenant's certificates.
        name: Name,
    },
}

/// The owner of a certificate: `rejoin://<cluster>/node/<name>`, `…/client/<name>`, `…/tenant/<tenant>/<scope>/<name>`
/// or `…/ca`, kept as a URI in the certificate.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Subject {
    /// The cluster whose authority signed it.
    pub cluster: ClusterId,
    /// What it may act as in that cluster.
    pub role: Role,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rejoin://{}", self.cluster)?;
        match &self.role {
            Role::Authority => f.write_str("/ca"),
            Role::Node(name) => write!(f, "/node/{name}"),
            Role::Client(name) => write!(f, "/client/{name}"),
            Role::Tenant { tenant, scope, name } => write!(f, "/tenant/{tenant}/{scope}/{name}"),
        }
    }
}

impl Subject {
    /// Parses the form that `Display` writes, and no other.
    pub(crate) fn parse(uri: &str) -> Option<Self> {
        let mut parts = uri.strip_prefix("rejoin://")?.split('/');
        let cluster: ClusterId = parts.next()?.parse().ok()?;
        let role = match (parts.next()?, parts.next(), parts.next(), parts.next()) {
            ("ca", None, None, None) => Role::Authority,
            ("node", Some(name), None, None) => Role::Node(Name::new(name).ok()?),
            ("client", Some(name), None, None) => Role::Client(Name::new(name).ok()?),
            ("tenant", Some(tenant), Some(scope), Some(name)) => {
                let (tenant, name) = (Name::new(tenant).ok()?, Name::new(name).ok()?);
                Role::Tenant { tenant, scope: scope.parse().ok()?, name }
            }
            _ => return None,
        };
        let subject = Self { cluster, role };
        // The number parser takes signs and upper case; one subject has one spelling.
        (subject.to_string() == uri).then_some(subject)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_has_one_spelling() {
        let cluster = ClusterId(0xab);
        let n1 = Name::new("n1").unwrap();
        let tenants = Role::Tenant { tenant: Name::new("shop").unwrap(), scope: Scope::TenantAdmin, name: n1.clone() };
        for role in [Role::Authority, Role::Node(n1.clone()), Role::Client(n1), tenants] {
            let subject = Subject { cluster, role };
            assert_eq!(Subject::parse(&subject.to_string()), Some(subject));
        }
        let hex = cluster.to_string();
        let wrong = [
            format!("rejoin://{hex}/node/"),
            format!("rejoin://{hex}/node/n1/x"),
            format!("rejoin://{hex}/admin/n1"),
            format!("rejoin://{hex}/ca/n1"),
            format!("rejoin://{hex}/tenant/shop/admin/n1"),
            format!("rejoin://{hex}/tenant/shop/operator"),
            format!("rejoin://{hex}/tenant/shop/operator/n1/x"),
            format!("rejoin://{}/node/n1", hex.to_uppercase()),
            "rejoin://ab/node/n1".into(),
            "rejoin://+0000000000000000000000000000ab/ca".into(),
            "http://example/".into(),
        ];
        for uri in wrong {
            assert_eq!(Subject::parse(&uri), None, "{uri}");
        }
    }
}
