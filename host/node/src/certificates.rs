//! The node's certificates while time passes: whether they hold, when they end, and new files in place of old ones
//! without a restart.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use rejoin_proto::NodeId;
use rejoin_wire::{Endpoint, Identity, Period, utc_text};

use crate::config::Config;
use crate::node::StartError;
use crate::open;
use crate::parts::Parts;

/// From so long before its end a certificate is warned of.
const WARN_BEFORE: Duration = Duration::from_secs(30 * DAY);
const DAY: u64 = 86_400;
/// How often the files are looked at.
const GLANCE: Duration = Duration::from_secs(10);

/// The content of the files `ca`, `certificate` and `key`.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Files {
    ca: Vec<u8>,
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Files {
    pub(crate) fn read(config: &Config) -> Result<Self, StartError> {
        let Config { ca, certificate, key, .. } = config;
        Ok(Self { ca: open::read("ca", ca)?, certificate: open::read("certificate", certificate)?, key: open::read("key", key)? })
    }

    /// Who they prove this node to be, if they go together and hold today.
    pub(crate) fn identity(&self, config: &Config) -> Result<Identity, StartError> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let identity = Identity::node(&text(&self.ca), &text(&self.certificate), &text(&self.key))?;
        open::own_id(config, &identity)?;
        let now = SystemTime::now();
        let fault = both(config, &identity).iter().find_map(|certificate| certificate.fault(now));
        fault.map_or(Ok(identity), |why| Err(StartError::Unfit(why)))
    }
}

/// The certificates in use.
pub(crate) struct Certificates(Mutex<State>);

struct State {
    identity: Identity,
    /// What was last looked at.
    files: Files,
    /// Why it is not in use, if it is not.
    problem: Option<String>,
}

/// One of the two certificates that a node shows or trusts.
struct Certificate<'a> {
    key: &'static str,
    path: &'a Path,
    period: Period,
    remedy: String,
}

impl Certificate<'_> {
    /// Why nobody takes it now, if so.
    fn fault(&self, now: SystemTime) -> Option<String> {
        let (key, path) = (self.key, self.path.display());
        if self.period.ended_before(now) {
            Some(format!("{key} = {path}: it has expired on {}; {}", utc_text(self.period.until), self.remedy))
        } else if self.period.begins_after(now) {
            Some(format!("{key} = {path}: it holds only from {}: is this machine's clock right?", utc_text(self.period.from)))
        } else {
            None
        }
    }

    /// What an operator should know of it.
    fn warning(&self, now: SystemTime) -> Option<String> {
        let left = self.period.left(now);
        self.fault(now).or_else(|| {
            let text = || {
                let (key, path, days) = (self.key, self.path.display(), left.as_secs() / DAY);
                format!("{key} = {path}: it ends on {}, in {days} days; {}", utc_text(self.period.until), self.remedy)
            };
            (left < WARN_BEFORE).then(text)
        })
    }
}

/// The node's own certificate, and that of its authority.
fn both<'a>(config: &'a Config, identity: &Identity) -> Vec<Certificate<'a>> {
    let own = |period| Certificate {
        key: "certificate",
        path: &config.certificate,
        period,
        remedy: format!("`rejoin cert node {} --renew` makes another, which a running node takes by itself", config.name),
    };
    let authority = Certificate {
        key: "ca",
        path: &config.ca,
        period: identity.authority_period(),
        remedy: "`rejoin cert ca --renew` makes another; give it to every node and client".into(),
    };
    identity.own_period().map(own).into_iter().chain([authority]).collect()
}

impl Certificates {
    /// Those that a node has started with.
    pub(crate) fn new(identity: Identity, files: Files) -> Self {
        Self(Mutex::new(State { identity, files, problem: None }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the node's certificate and its authority's end, in seconds since 1970.
    pub(crate) fn ends(&self) -> (u64, u64) {
        let state = self.state();
        (state.identity.own_period().map_or(0, |period| period.until), state.identity.authority_period().until)
    }

    /// What an operator should know of this node's certificates.
    pub(crate) fn warnings(&self, config: &Config) -> Vec<String> {
        let (state, now) = (self.state(), SystemTime::now());
        let ends = both(config, &state.identity).into_iter().filter_map(|certificate| certificate.warning(now));
        let problem = state.problem.iter().map(|why| format!("the certificates on the disk are not in use: {why}"));
        ends.chain(problem).collect()
    }

    /// Uses the files for new connections if they are others than before. Says whether they are.
    ///
    /// # Errors
    /// Why they are not used; those in use stay.
    pub(crate) fn reload(&self, config: &Config, endpoint: &Endpoint) -> Result<bool, String> {
        let mut state = self.state();
        let files = match Files::read(config) {
            Ok(files) => files,
            Err(why) => return Err(state.problem.insert(why.to_string()).clone()),
        };
        if files == state.files {
            return state.problem.clone().map_or(Ok(false), Err);
        }
        state.files = files;
        let taken = state.files.identity(config).map_err(|why| why.to_string()).and_then(|identity| {
            endpoint.set_identity(identity.clone()).map_err(|why| why.to_string())?;
            Ok(identity)
        });
        match taken {
            Ok(identity) => {
                (state.identity, state.problem) = (identity, None);
                Ok(true)
            }
            Err(why) => Err(state.problem.insert(why).clone()),
        }
    }
}

/// Takes new files as they come, and warns of an end that comes near: once when it does, and once a day.
pub(crate) async fn watch(parts: Arc<Parts>, endpoint: Endpoint) {
    let mut said: (Vec<String>, u64) = (Vec::new(), 0);
    loop {
        // A failure is one of the warnings.
        let _ = reload(&parts, &endpoint);
        let mut warnings = parts.certificates.warnings(&parts.config);
        warnings.extend(of_peers(&parts));
        let today = parts.clock.now().wall_ms / (DAY * 1_000);
        if said != (warnings.clone(), today) {
            warnings.iter().for_each(|why| tracing::warn!(why, "certificates"));
            said = (warnings, today);
        }
        tokio::time::sleep(GLANCE).await;
    }
}

/// Looks at the files now, and says in the log what was done.
pub(crate) fn reload(parts: &Parts, endpoint: &Endpoint) -> Result<bool, String> {
    let reloaded = parts.certificates.reload(&parts.config, endpoint);
    if reloaded == Ok(true) {
        let (own, authority) = parts.certificates.ends();
        tracing::info!(until = utc_text(own), authority_until = utc_text(authority), "new certificates are in use");
    }
    reloaded
}

/// What an operator should know of the certificates that connected peers have shown.
pub(crate) fn of_peers(parts: &Parts) -> Vec<String> {
    let now = SystemTime::now();
    let shown: Vec<_> = parts.peers().all().map(|(peer, connection)| (*peer, connection.certificate_period())).collect();
    let warning = |(peer, period): (NodeId, Option<Period>)| {
        let (name, period) = (parts.peer_name(peer), period?);
        if period.ended_before(now) {
            Some(format!("the certificate of node {name} has expired on {}; it is taken until its connection ends", utc_text(period.until)))
        } else {
            let ends = || format!("the certificate of node {name} ends on {}", utc_text(period.until));
            (period.left(now) < WARN_BEFORE).then(ends)
        }
    };
    shown.into_iter().filter_map(warning).collect()
}
