//! An immutable snapshot of layout, catalog and tokens. The catalog task replaces it after each change.

use std::sync::Arc;

use rejoin_core::control::Control;
use rejoin_core::view::ClusterView;
use rejoin_proto::Layout;

use crate::token::{Secret, Tokens};

/// Layout and catalog, and the tokens that sessions are checked against.
pub(crate) struct NodeView {
    pub(crate) cluster: Arc<ClusterView>,
    pub(crate) tokens: Tokens,
}

/// The snapshot of the catalog's present records.
pub(crate) fn node_view(layout: &Layout, control: &Control, secret: &Secret) -> NodeView {
    let cluster = Arc::new(ClusterView::new(layout.clone(), control.records()));
    NodeView { cluster, tokens: Tokens::new(secret, control.records()) }
}
