//! Spreads connections over the runtimes of an endpoint, in turn. All tasks of a connection are on one of them.

use std::sync::{
    OnceLock,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use tokio::runtime::Handle;

/// The runtimes, and whose turn it is.
#[derive(Debug, Default)]
pub(crate) struct Spread {
    runtimes: OnceLock<Box<[Handle]>>,
    /// Apart, so that the few and busy connections of peers are on different runtimes, however many clients come in
    /// between.
    peers: AtomicUsize,
    others: AtomicUsize,
}

impl Spread {
    /// Over these from now on. They are set once.
    pub(crate) fn over(&self, runtimes: &[Handle]) {
        // A second call changes nothing.
        let _ = self.runtimes.set(runtimes.into());
    }

    /// The runtime of the next connection. `None`: that of its endpoint.
    pub(crate) fn next(&self, is_peer: bool) -> Option<Handle> {
        let runtimes = self.runtimes.get().filter(|runtimes| !runtimes.is_empty())?;
        let turns = if is_peer { &self.peers } else { &self.others };
        // The first one comes last: it reads the port for all of them.
        let turn = turns.fetch_add(1, Relaxed).wrapping_add(1);
        runtimes.get(turn % runtimes.len()).cloned()
    }
}
