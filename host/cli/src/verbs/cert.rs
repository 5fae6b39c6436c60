//! `cert ca|node|client`: the files that a cluster is started with.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Serialize;

use rejoin_proto::{ClusterId, Name};
use rejoin_wire::cert::{ClusterCa, Issued, Validity};

use crate::args::{CertRenewal, CertVerb};
use crate::failure::Failure;
use crate::files::{self, Mode};
use crate::output::{Output, note};

const CA: &str = "ca.pem";
const CA_KEY: &str = "ca-key.pem";
/// What contexts are authenticated with, and the first admin token follows from.
pub(crate) const SECRET: &str = "cluster-secret";

/// What `--json` prints.
#[derive(Serialize, Debug)]
struct Made {
    cluster: String,
    files: Vec<PathBuf>,
}

pub(crate) fn run(out: Output, verb: &CertVerb) -> Result<(), Failure> {
    let made = match verb {
        CertVerb::Ca { place, days, renew: true } => {
            let ca = load(&place.dir)?;
            let cert = ca.renew_own(days_from_now(*days)).map_err(Failure::usage)?;
            files::replace(&place.dir.join(CA), cert.as_bytes(), Mode::Public)?;
            Made { cluster: ca.cluster().to_string(), files: vec![place.dir.join(CA)] }
        }
        CertVerb::Ca { place, days, renew: false } => {
            let ca = authority(&place.dir, *days)?;
            Made { cluster: ca.cluster().to_string(), files: [CA, CA_KEY, SECRET].map(|file| place.dir.join(file)).into() }
        }
        CertVerb::Node { name, host, place, renewal: CertRenewal { renew: true, new_key }, days } => {
            if !host.is_empty() {
                return Err(Failure::usage("--host cannot be given with --renew: the names in the certificate stay as they are"));
            }
            renew(&load(&place.dir)?, &place.dir, &checked(name)?, *new_key, *days)?
        }
        CertVerb::Client { name, place, renewal: CertRenewal { renew: true, new_key }, days } => {
            renew(&load(&place.dir)?, &place.dir, &checked(name)?, *new_key, *days)?
        }
        CertVerb::Node { name, host, place, days, .. } => {
            let ca = load(&place.dir)?;
            let issued = ca.issue_node(&checked(name)?, host, days_from_now(*days)).map_err(Failure::usage)?;
            keep(&ca, &place.dir, name, &issued)?
        }
        CertVerb::Client { name, place, days, .. } => {
            let ca = load(&place.dir)?;
            let issued = ca.issue_client(&checked(name)?, days_from_now(*days)).map_err(Failure::usage)?;
            keep(&ca, &place.dir, name, &issued)?
        }
    };
    if out.json {
        return out.json(&made);
    }
    note(format!("cluster {}", made.cluster));
    made.files.iter().try_for_each(|file| out.line(file.display()))
}

/// Makes a new cluster's authority and secret in a directory.
///
/// # Errors
/// There is one already, or the files cannot be written.
pub(crate) fn authority(dir: &Path, days: u32) -> Result<ClusterCa, Failure> {
    let ca = ClusterCa::create(ClusterId(rand::random()), days_from_now(days)).map_err(Failure::usage)?;
    let secret: String = rand::random::<[u8; 32]>().iter().map(|byte| format!("{byte:02x}")).collect();
    files::directory(dir)?;
    files::create_all(&[
        (dir.join(CA_KEY), ca.key_pem().as_bytes(), Mode::Private),
        (dir.join(CA), ca.cert_pem().as_bytes(), Mode::Public),
        (dir.join(SECRET), format!("{secret}\n").as_bytes(), Mode::Private),
    ])?;
    Ok(ca)
}

/// The authority in a directory.
///
/// # Errors
/// There is none, or its files do not belong together.
pub(crate) fn load(dir: &Path) -> Result<ClusterCa, Failure> {
    let advice = |failure: Failure| failure.next(format!("`rejoin cert ca --dir {}` makes a new cluster's authority", dir.display()));
    let cert = files::read_text(&dir.join(CA)).map_err(advice)?;
    let key = files::read_text(&dir.join(CA_KEY)).map_err(advice)?;
    ClusterCa::load(&cert, &key).map_err(Failure::usage)
}

fn keep(ca: &ClusterCa, dir: &Path, name: &str, issued: &Issued) -> Result<Made, Failure> {
    let (cert, key) = (dir.join(format!("{name}.pem")), dir.join(format!("{name}-key.pem")));
    files::create_all(&[
        (key.clone(), issued.key_pem.as_bytes(), Mode::Private),
        (cert.clone(), issued.cert_pem.as_bytes(), Mode::Public),
    ])?;
    Ok(Made { cluster: ca.cluster().to_string(), files: vec![cert, key] })
}

/// Replaces a certificate, and its key if that is wanted.
fn renew(ca: &ClusterCa, dir: &Path, name: &Name, new_key: bool, days: u32) -> Result<Made, Failure> {
    let (cert, key) = (dir.join(format!("{name}.pem")), dir.join(format!("{name}-key.pem")));
    let advice = |failure: Failure| failure.next(format!("`rejoin cert node {name}` makes a first certificate, without --renew"));
    let old = files::read_text(&cert).map_err(advice)?;
    let old_key = if new_key { None } else { Some(files::read_text(&key).map_err(advice)?) };
    let issued = ca.renew(&old, old_key.as_deref(), days_from_now(days));
    let issued = issued.map_err(|why| Failure::usage(format!("{}: {why}", cert.display())))?;
    let mut made = vec![cert.clone()];
    if new_key {
        // A node that looks between the two sees that they do not belong together, and looks again.
        files::replace(&key, issued.key_pem.as_bytes(), Mode::Private)?;
        made.push(key);
    }
    files::replace(&cert, issued.cert_pem.as_bytes(), Mode::Public)?;
    Ok(Made { cluster: ca.cluster().to_string(), files: made })
}

pub(crate) fn days_from_now(days: u32) -> Validity {
    Validity::days(SystemTime::now(), days.min(36_500))
}

fn checked(name: &str) -> Result<Name, Failure> {
    let name = Name::new(name).map_err(|why| Failure::usage(format!("{name:?}: {why}")))?;
    if name.as_str() == "ca" {
        return Err(Failure::usage("the name \"ca\" would overwrite the authority's files: choose another"));
    }
    if name.as_str().ends_with("-key") {
        return Err(Failure::usage(format!("{name:?} ends in -key, as the files of keys do: choose another name")));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_made_once_and_found_again() {
        let folder = tempfile::tempdir().unwrap();
        assert!(load(folder.path()).is_err());
        let made = authority(folder.path(), 10).unwrap();
        assert_eq!(load(folder.path()).unwrap().cluster(), made.cluster());
        assert!(authority(folder.path(), 10).is_err());
        assert_eq!(load(folder.path()).unwrap().cluster(), made.cluster());
        assert_eq!(files::read(&folder.path().join(SECRET)).unwrap().len(), 65);
    }

    #[test]
    fn names_that_are_none_or_the_authoritys_are_refused() {
        assert!(checked("../n1").is_err() && checked("ca").is_err() && checked("").is_err());
        assert!(checked("n1-key").is_err(), "its certificate would be the file of n1's key");
        assert_eq!(checked("n1").unwrap().as_str(), "n1");
    }
}
