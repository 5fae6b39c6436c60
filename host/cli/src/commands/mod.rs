//! The commands that ask a cluster, and those that make files for one. `json` has what they print with `--json`.

pub(crate) mod audit;
pub(crate) mod bucket;
pub(crate) mod cert;
pub(crate) mod completions;
pub(crate) mod component;
mod delete;
pub(crate) mod encryption;
pub(crate) mod exchange;
pub(crate) mod json;
pub(crate) mod laws;
pub(crate) mod layout;
mod layout_json;
pub(crate) mod new;
pub(crate) mod node;
pub(crate) mod object;
pub(crate) mod plugin;
mod quota;
pub(crate) mod status;
pub(crate) mod tenant;
pub(crate) mod token;
mod token_json;
mod usage;
