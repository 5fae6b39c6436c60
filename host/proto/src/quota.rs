//! What a tenant or a bucket may use.

use serde::{Deserialize, Serialize};

/// The limits of a tenant, or of one of its buckets. `None`: as much as there is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug, Serialize, Deserialize)]
pub struct Quota {
    /// Objects in the whole cluster, each counted once.
    pub objects: Option<u64>,
    /// Bytes of these objects, each counted once, with what is stored beside the values.
    pub bytes: Option<u64>,
    /// Requests a second at each node.
    pub requests_per_second: Option<u64>,
    /// Bytes a second of the requests that come in at each node.
    pub bytes_per_second: Option<u64>,
    /// Connections to each node. Of a tenant only.
    pub connections: Option<u64>,
}

impl Quota {
    /// Whether it limits nothing.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}
