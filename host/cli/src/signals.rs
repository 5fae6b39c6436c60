//! Signals that stop a command or reload its files.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::Failure;

/// Receives SIGINT (Ctrl-C), SIGTERM and SIGHUP, which no longer end the process once this exists.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    /// Registers the handlers.
    ///
    /// # Errors
    /// The operating system refuses a handler.
    pub(crate) fn listen() -> Result<Self, Failure> {
        let on = |kind| signal(kind).map_err(|why| Failure::usage(format!("signals cannot be received: {why}")));
        Ok(Self {
            interrupt: on(SignalKind::interrupt())?,
            terminate: on(SignalKind::terminate())?,
            hangup: on(SignalKind::hangup())?,
        })
    }

    /// Waits for any of the signals. For a command without files to reload SIGHUP means that the terminal is gone.
    pub(crate) async fn any(&mut self) {
        self.next().await;
    }

    /// Waits for a signal. Returns its action.
    pub(crate) async fn next(&mut self) -> SignalAction {
        tokio::select! {
            biased;
            _ = self.interrupt.recv() => SignalAction::Stop,
            _ = self.terminate.recv() => SignalAction::Stop,
            _ = self.hangup.recv() => SignalAction::Reload,
        }
    }
}

/// The action that a signal requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SignalAction {
    /// Ctrl-C or SIGTERM.
    Stop,
    /// SIGHUP: reload the certificate files.
    Reload,
}
