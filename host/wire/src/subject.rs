//! The name in a certificate.

use std::fmt;

use rejoin_proto::{ClusterId, Name};

/// What the owner of a certificate may act as.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Role {
    /// The authority itself.
    Authority,
    /// A node of that name.
    Node(Name),
    /// A client of that name.
    Client(Name),
}

/// The owner of a certificate: `rejoin://<cluster>/node/<name>`, `…/client/<name>` or `…/ca`, kept as a URI in the
/// certificate.
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
        }
    }
}

impl Subject {
    /// Parses the form that `Display` writes, and no other.
    pub(crate) fn parse(uri: &str) -> Option<Self> {
        let mut parts = uri.strip_prefix("rejoin://")?.split('/');
        let cluster: ClusterId = parts.next()?.parse().ok()?;
        let role = match (parts.next()?, parts.next(), parts.next()) {
            ("ca", None, None) => Role::Authority,
            ("node", Some(name), None) => Role::Node(Name::new(name).ok()?),
            ("client", Some(name), None) => Role::Client(Name::new(name).ok()?),
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
        for role in [Role::Authority, Role::Node(n1.clone()), Role::Client(n1)] {
            let subject = Subject { cluster, role };
            assert_eq!(Subject::parse(&subject.to_string()), Some(subject));
        }
        let hex = cluster.to_string();
        let wrong = [
            format!("rejoin://{hex}/node/"),
            format!("rejoin://{hex}/node/n1/x"),
            format!("rejoin://{hex}/admin/n1"),
            format!("rejoin://{hex}/ca/n1"),
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
