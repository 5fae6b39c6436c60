//! Names of the small files in the data directory that the node itself writes.

/// The catalog: buckets, tokens, plugins and tenants.
pub(crate) const CATALOG_FILE: &str = "catalog";
/// The ids of this node's disk and of its peers' disks.
pub(crate) const DISKS_FILE: &str = "disks";
/// The cluster's layout.
pub(crate) const LAYOUT_FILE: &str = "layout";
