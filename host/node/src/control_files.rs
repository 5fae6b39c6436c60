//! Names of the small files in the data directory that the node itself writes.

/// The catalog: buckets, tokens, plugins and tenants.
pub(crate) const CATALOG_FILE: &str = "catalog";
/// The ids of this node's disk and of its peers' disks.
pub(crate) const DISKS_FILE: &str = "disks";
/// The layouts of the cluster, and how far changes of them have come.
pub(crate) const RING_FILE: &str = "ring";
/// The cluster's only layout, as nodes stored it before layouts could change. It is read while there is no ring.
pub(crate) const LAYOUT_FILE: &str = "layout";
