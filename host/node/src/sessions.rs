//! Counts the admitted client sessions, in total and per token.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Mutex;

use tokio::sync::watch;

use rejoin_proto::TenantId;

use crate::lock::lock;

/// The tenant is part of the key: tokens of different tenants may have the same name.
type TokenKey = (TenantId, String);

/// The admitted sessions.
#[derive(Default)]
pub(crate) struct Sessions {
    by_token: Mutex<BTreeMap<TokenKey, usize>>,
    open: watch::Sender<usize>,
}

/// Counts one session of a token until it is dropped.
pub(crate) struct SessionPermit<'a> {
    sessions: &'a Sessions,
    token: TokenKey,
}

impl Sessions {
    /// How many sessions are open.
    pub(crate) fn count(&self) -> usize {
        *self.open.borrow()
    }

    /// Resolves when no session is open.
    pub(crate) async fn none(&self) {
        // Fails only when the sender is dropped, and `self` owns it.
        let _ = self.open.subscribe().wait_for(|open| *open == 0).await;
    }

    /// Admits another session of that token, or `None` if the token has `limit` sessions already.
    pub(crate) fn try_admit(&self, token: &TokenKey, limit: usize) -> Option<SessionPermit<'_>> {
        let mut by_token = lock(&self.by_token);
        let count = by_token.entry(token.clone()).or_default();
        if *count >= limit {
            return None;
        }
        *count += 1;
        drop(by_token);
        self.open.send_modify(|open| *open += 1);
        Some(SessionPermit { sessions: self, token: token.clone() })
    }
}

impl Drop for SessionPermit<'_> {
    fn drop(&mut self) {
        let mut by_token = lock(&self.sessions.by_token);
        if let Entry::Occupied(mut count) = by_token.entry(self.token.clone()) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        drop(by_token);
        self.sessions.open.send_modify(|open| *open -= 1);
    }
}
