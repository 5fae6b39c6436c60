//! The verbs that talk to a cluster, and those that make files for one.

pub(crate) mod bucket;
pub(crate) mod cert;
pub(crate) mod laws;
pub(crate) mod new;
pub(crate) mod object;
pub(crate) mod plugin;
pub(crate) mod shapes;
pub(crate) mod status;
pub(crate) mod token;
