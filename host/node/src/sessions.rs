//! Counts the admitted client sessions, in total and per token, and remembers when each token was last used.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use rejoin_proto::{Name, TenantId};

use crate::lock::lock;

/// The tenant is part of the key: tokens of different tenants may have the same name.
pub(crate) type TokenKey = (TenantId, Name);

/// The admitted sessions.
#[derive(Default)]
pub(crate) struct Sessions {
    by_token: Mutex<BTreeMap<TokenKey, usize>>,
    open: watch::Sender<usize>,
    /// When each token was last used, in milliseconds since 1970, since the node started. One entry for each token that
    /// was ever admitted, so no more than the catalog has.
    used_ms: Mutex<BTreeMap<TokenKey, Arc<AtomicU64>>>,
}

/// Counts one session of a token until it is dropped.
pub(crate) struct SessionPermit<'a> {
    sessions: &'a Sessions,
    token: TokenKey,
    used_ms: Arc<AtomicU64>,
}

/// Who has as many sessions as it may.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum AtLimit {
    Token,
    /// By its quota.
    Tenant(u64),
}

impl SessionPermit<'_> {
    /// Notes that the token is used at that time.
    pub(crate) fn used(&self, now_ms: u64) {
        self.used_ms.store(now_ms, Ordering::Relaxed);
    }
}

impl Sessions {
    /// When a token was last used, in milliseconds since 1970, if it was since the node started.
    pub(crate) fn last_used_ms(&self, token: &TokenKey) -> Option<u64> {
        lock(&self.used_ms).get(token).map(|used_ms| used_ms.load(Ordering::Relaxed))
    }

    /// How many sessions are open.
    pub(crate) fn count(&self) -> usize {
        *self.open.borrow()
    }

    /// How many sessions of a tenant's tokens are open.
    pub(crate) fn of_tenant(&self, tenant: TenantId) -> u64 {
        count_of(&lock(&self.by_token), tenant)
    }

    /// Resolves when no session is open.
    pub(crate) async fn none(&self) {
        // Fails only when the sender is dropped, and `self` owns it.
        let _ = self.open.subscribe().wait_for(|open| *open == 0).await;
    }

    /// Admits another session of that token, unless the token or its tenant has as many sessions as it may.
    ///
    /// # Errors
    /// Which of the two.
    pub(crate) fn try_admit(
        &self,
        token: &TokenKey,
        limit: usize,
        tenant_limit: Option<u64>,
    ) -> Result<SessionPermit<'_>, AtLimit> {
        let mut by_token = lock(&self.by_token);
        if let Some(most) = tenant_limit
            && count_of(&by_token, token.0) >= most
        {
            return Err(AtLimit::Tenant(most));
        }
        let count = by_token.entry(token.clone()).or_default();
        if *count >= limit {
            return Err(AtLimit::Token);
        }
        *count += 1;
        drop(by_token);
        self.open.send_modify(|open| *open += 1);
        let used_ms = lock(&self.used_ms).entry(token.clone()).or_default().clone();
        Ok(SessionPermit { sessions: self, token: token.clone(), used_ms })
    }
}

fn count_of(by_token: &BTreeMap<TokenKey, usize>, tenant: TenantId) -> u64 {
    by_token.iter().filter(|((of, _), _)| *of == tenant).map(|(_, count)| *count as u64).sum()
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
