//! What a tenant or a bucket may use.

use serde::{Deserialize, Serialize};

/// Something that can be limited.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Limit {
    /// Objects in the whole cluster, each counted once.
    Objects,
    /// Bytes of these objects, each counted once, with what is stored beside the values.
    Bytes,
    /// Requests a second at each node.
    RequestsPerSecond,
    /// Bytes a second of the requests that come in at each node.
    BytesPerSecond,
    /// Connections to each node. Of a tenant only.
    Connections,
    /// Requests under way at each node.
    InFlight,
    /// Siblings of an object.
    Siblings,
    /// Fuel a second of merges at each node.
    FuelPerSecond,
    /// Plugins in the catalog. Of a tenant only.
    Plugins,
    /// Bytes of these plugins. Of a tenant only.
    PluginBytes,
}

impl Limit {
    /// All of them, in the order of the book.
    pub const ALL: [Self; 10] = [
        Self::Objects,
        Self::Bytes,
        Self::RequestsPerSecond,
        Self::BytesPerSecond,
        Self::Connections,
        Self::InFlight,
        Self::Siblings,
        Self::FuelPerSecond,
        Self::Plugins,
        Self::PluginBytes,
    ];

    /// Its name as an option of the command line, without dashes in front, and in JSON with underscores.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Objects => "objects",
            Self::Bytes => "bytes",
            Self::RequestsPerSecond => "requests-per-second",
            Self::BytesPerSecond => "bytes-per-second",
            Self::Connections => "connections",
            Self::InFlight => "in-flight",
            Self::Siblings => "siblings",
            Self::FuelPerSecond => "fuel-per-second",
            Self::Plugins => "plugins",
            Self::PluginBytes => "plugin-bytes",
        }
    }

    /// What is limited, behind a number in a sentence.
    #[must_use]
    pub const fn what(self) -> &'static str {
        match self {
            Self::Objects => "objects stored",
            Self::Bytes => "bytes stored",
            Self::RequestsPerSecond => "requests a second",
            Self::BytesPerSecond => "bytes a second",
            Self::Connections => "connections to this node",
            Self::InFlight => "requests under way at this node",
            Self::Siblings => "siblings of an object",
            Self::FuelPerSecond => "units of fuel a second",
            Self::Plugins => "plugins",
            Self::PluginBytes => "bytes of plugins",
        }
    }

    /// Whether only a tenant has it, and no bucket.
    #[must_use]
    pub const fn is_of_tenants(self) -> bool {
        matches!(self, Self::Connections | Self::Plugins | Self::PluginBytes)
    }

    const fn place(self) -> usize {
        self as usize
    }
}

/// How much there may be of each. What is not named is not limited.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug, Serialize, Deserialize)]
pub struct Amounts([Option<u64>; Limit::ALL.len()]);

impl Amounts {
    /// How much there may be.
    #[must_use]
    pub fn get(&self, limit: Limit) -> Option<u64> {
        self.0[limit.place()]
    }

    /// Amounts something, or ends its limit.
    pub fn set(&mut self, limit: Limit, most: Option<u64>) {
        self.0[limit.place()] = most;
    }

    /// The limits that are set.
    pub fn iter(&self) -> impl Iterator<Item = (Limit, u64)> + '_ {
        Limit::ALL.into_iter().filter_map(|limit| Some((limit, self.get(limit)?)))
    }

    /// Whether nothing is limited.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// The quota of a tenant, or of one of its buckets.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug, Serialize, Deserialize)]
pub struct Quota {
    /// More than this is refused.
    pub hard: Amounts,
    /// More than this is said, in metrics and in the tenant's usage.
    pub soft: Amounts,
    /// Its share where tenants wait for each other, in relation to theirs; without one it is 1. Of a tenant only.
    pub weight: Option<u32>,
}

/// The largest weight of a tenant.
pub const MAX_WEIGHT: u32 = 1_000;

impl Quota {
    /// With a limit beyond which everything is refused.
    #[must_use]
    pub fn with(mut self, limit: Limit, most: u64) -> Self {
        self.hard.set(limit, Some(most));
        self
    }

    /// With a limit that only warns.
    #[must_use]
    pub fn warn(mut self, limit: Limit, most: u64) -> Self {
        self.soft.set(limit, Some(most));
        self
    }

    /// With a weight, 1 to [`MAX_WEIGHT`].
    #[must_use]
    pub fn weighing(mut self, weight: u32) -> Self {
        self.weight = Some(weight);
        self
    }

    /// Whether it limits nothing, and has no weight.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}
