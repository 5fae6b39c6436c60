//! The node's certificates: reads, checks and replaces them. `renewal` does so while the node runs.

use std::path::Path;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use rejoin_proto::NodeId;
use rejoin_wire::{Endpoint, Identity, Role, Validity, utc_text};

use crate::config::Config;
use crate::error::StartError;
use crate::lock::lock;

/// How long before its end a certificate is warned of.
pub(crate) const WARN_BEFORE: Duration = Duration::from_secs(30 * DAY);
pub(crate) const DAY: u64 = 86_400;
/// The content of the files `ca`, `certificate` and `key`.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct CertificateFiles {
    ca: Vec<u8>,
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl CertificateFiles {
    pub(crate) fn read(config: &Config) -> Result<Self, StartError> {
        let Config { ca, certificate, key, .. } = config;
        Ok(Self { ca: read("ca", ca)?, certificate: read("certificate", certificate)?, key: read("key", key)? })
    }

    /// The identity that they prove.
    ///
    /// # Errors
    /// They do not belong together or to this node, or are not valid today.
    pub(crate) fn identity(&self, config: &Config) -> Result<Identity, StartError> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let identity = Identity::node(&text(&self.ca), &text(&self.certificate), &text(&self.key))?;
        own_id(config, &identity)?;
        let now = SystemTime::now();
        let fault = own_and_authority(config, &identity).iter().find_map(|certificate| certificate.fault(now));
        fault.map_or(Ok(identity), |why| Err(StartError::Unfit(why)))
    }
}

/// Reads a file that the configuration names.
pub(crate) fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, StartError> {
    std::fs::read(path).map_err(|source| StartError::File { key, path: path.to_path_buf(), source })
}

/// The id of the node in the certificate, which must be the one that the configuration names.
pub(crate) fn own_id(config: &Config, identity: &Identity) -> Result<NodeId, StartError> {
    match identity.subject().map(|subject| &subject.role) {
        Some(Role::Node(name)) if *name == config.name => Ok(NodeId::from_name(name)),
        Some(role) => {
            let path = config.certificate.display();
            Err(StartError::Unfit(format!(
                "certificate = {path}: it is for {role:?}, and this node is {}",
                config.name
            )))
        }
        None => Err(StartError::Unfit(format!("certificate = {}: it names nobody", config.certificate.display()))),
    }
}

/// The certificates in use.
pub(crate) struct Certificates(Mutex<State>);

struct State {
    identity: Identity,
    /// The content that was read last, in use or not.
    files: CertificateFiles,
    /// Why `files` are not in use.
    problem: Option<String>,
}

/// The node's own certificate or its authority's, with what an operator can do about it.
struct Certificate<'a> {
    key: &'static str,
    path: &'a Path,
    period: Validity,
    remedy: String,
}

impl Certificate<'_> {
    /// Why it is not valid now.
    fn fault(&self, now: SystemTime) -> Option<String> {
        let (key, path) = (self.key, self.path.display());
        if self.period.ended_before(now) {
            Some(format!("{key} = {path}: it has expired on {}; {}", utc_text(self.period.until), self.remedy))
        } else if self.period.begins_after(now) {
            Some(format!(
                "{key} = {path}: it holds only from {}: is this machine's clock right?",
                utc_text(self.period.from)
            ))
        } else {
            None
        }
    }

    /// A warning if it is not valid, or will not be for long.
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

/// The node's own certificate and its authority's.
fn own_and_authority<'a>(config: &'a Config, identity: &Identity) -> Vec<Certificate<'a>> {
    let own = |period| Certificate {
        key: "certificate",
        path: &config.certificate,
        period,
        remedy: format!(
            "`rejoin cert node {} --renew` makes another, which a running node takes by itself",
            config.name
        ),
    };
    let authority = Certificate {
        key: "ca",
        path: &config.ca,
        period: identity.authority_validity(),
        remedy: "`rejoin cert ca --renew` makes another; give it to every node and client".into(),
    };
    identity.own_validity().map(own).into_iter().chain([authority]).collect()
}

impl Certificates {
    /// The certificates that the node has started with.
    pub(crate) fn new(identity: Identity, files: CertificateFiles) -> Self {
        Self(Mutex::new(State { identity, files, problem: None }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
    }

    /// When the node's certificate and its authority's end, in seconds since 1970.
    pub(crate) fn ends(&self) -> (u64, u64) {
        let state = self.state();
        (state.identity.own_validity().map_or(0, |period| period.until), state.identity.authority_validity().until)
    }

    /// Warnings about this node's certificates.
    pub(crate) fn warnings(&self, config: &Config) -> Vec<String> {
        let (state, now) = (self.state(), SystemTime::now());
        let ends =
            own_and_authority(config, &state.identity).into_iter().filter_map(|certificate| certificate.warning(now));
        let problem = state.problem.iter().map(|why| format!("the certificates on the disk are not in use: {why}"));
        ends.chain(problem).collect()
    }

    /// Reads the files, and uses them for new connections if they have changed. Returns whether they have.
    ///
    /// # Errors
    /// Why the new files are not used. The certificates in use stay.
    pub(crate) fn reload(&self, config: &Config, endpoint: &Endpoint) -> Result<bool, String> {
        let mut state = self.state();
        let files = match CertificateFiles::read(config) {
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
