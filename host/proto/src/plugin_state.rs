//! What the nodes of a cluster say of plugins: whether each can run them.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::id::{Name, PluginDigest};

/// Whether a node can run a plugin.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum PluginState {
    /// It has compiled it and reproduced its transcript.
    Ready,
    /// It is compiling it, or reproducing its transcript.
    Compiling,
    /// It does not have the module, or does not know of the plugin yet.
    Missing,
    /// The module is on its disk. It is compiled when a bucket needs it.
    Stored,
    /// The module was removed, since no bucket used it and others were pushed.
    Removed,
    /// Its transcript differs from the recorded one, so the node does not run it: the reason, at most
    /// [`MAX_STATE_BYTES`].
    Differs(String),
    /// It could not be compiled or loaded: the reason, at most [`MAX_STATE_BYTES`].
    Refused(String),
}

impl PluginState {
    /// The word for it, in lower case.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Compiling => "compiling",
            Self::Missing => "missing",
            Self::Stored => "stored",
            Self::Removed => "removed",
            Self::Differs(_) => "differs",
            Self::Refused(_) => "refused",
        }
    }

    /// Why a node in this state will not run the plugin, however long one waits. `None`: it does, or may soon.
    #[must_use]
    pub fn why_not(&self) -> Option<&str> {
        match self {
            Self::Ready | Self::Compiling | Self::Missing | Self::Stored => None,
            Self::Removed => Some("its module was removed: push it again"),
            Self::Differs(why) | Self::Refused(why) => Some(why.as_str()),
        }
    }
}

/// The most bytes of a reason in [`PluginState`].
pub const MAX_STATE_BYTES: usize = 512;

/// The plugins of one node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodePlugins {
    /// The node.
    pub node: Name,
    /// Its plugins that were asked for, by digest.
    pub plugins: Vec<(PluginDigest, PluginState)>,
}
