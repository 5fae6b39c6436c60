//! Being asked to stop.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::Failure;

/// Ctrl-C and SIGTERM, and SIGHUP beside them. From when this is made they no longer end the process by themselves.
pub(crate) struct Stop {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Stop {
    /// Begins to listen.
    ///
    /// # Errors
    /// The operating system has no room for another handler.
    pub(crate) fn listen() -> Result<Self, Failure> {
        let on = |kind| signal(kind).map_err(|why| Failure::usage(format!("signals cannot be received: {why}")));
        Ok(Self { interrupt: on(SignalKind::interrupt())?, terminate: on(SignalKind::terminate())?, hangup: on(SignalKind::hangup())? })
    }

    /// Resolves when any of them has come. SIGHUP then means that the terminal has gone.
    pub(crate) async fn asked(&mut self) {
        self.next().await;
    }

    /// Resolves when one has come, and says what it asks for.
    pub(crate) async fn next(&mut self) -> Asked {
        tokio::select! {
            biased;
            _ = self.interrupt.recv() => Asked::Stop,
            _ = self.terminate.recv() => Asked::Stop,
            _ = self.hangup.recv() => Asked::Reload,
        }
    }
}

/// What a signal asks of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Asked {
    /// Ctrl-C or SIGTERM.
    Stop,
    /// SIGHUP: to read its files anew.
    Reload,
}
