//! `cert ca|node|client|secret`: the certificates and secrets of a cluster.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Serialize;

use rejoin_node::Secret;
use rejoin_proto::access::DEFAULT_TENANT;
use rejoin_proto::{ClusterId, Name};
use rejoin_wire::{
    Identity, Validity,
    cert::{ClusterCa, Issued},
};

use crate::args::{CertCommand, CertRenewal, SecretStep};
use crate::failure::Failure;
use crate::files::{self, Mode};
use crate::global::GlobalArgs;
use crate::output::{Output, note};

const CA: &str = "ca.pem";
const CA_KEY: &str = "ca-key.pem";
/// The secret from which the context key and the first admin token are derived.
pub(crate) const SECRET: &str = "cluster-secret";

/// The output of `--json`.
#[derive(Serialize, Debug)]
struct IssuedFiles {
    cluster: String,
    files: Vec<PathBuf>,
}

pub(crate) fn run(global: &GlobalArgs, out: Output, command: &CertCommand) -> Result<(), Failure> {
    let issued_files = match command {
        CertCommand::Ca { place, days, renew: true, new_key: true, .. } => {
            let next = load(&place.dir)?.successor(days_from_now(*days)).map_err(Failure::usage)?;
            // With both certificates in it, the file goes with the old key as well.
            files::replace(&place.dir.join(CA), next.cert_pem().as_bytes(), Mode::Public)?;
            files::replace(&place.dir.join(CA_KEY), next.key_pem().as_bytes(), Mode::Private)?;
            let files = [CA, CA_KEY].map(|file| place.dir.join(file)).into();
            IssuedFiles { cluster: next.cluster().to_string(), files }
        }
        CertCommand::Ca { place, retire: true, .. } => {
            let ca = load(&place.dir)?;
            let cert = ca.without_others().map_err(Failure::usage)?;
            files::replace(&place.dir.join(CA), cert.as_bytes(), Mode::Public)?;
            IssuedFiles { cluster: ca.cluster().to_string(), files: vec![place.dir.join(CA)] }
        }
        CertCommand::Secret { place, step } => {
            let path = place.dir.join(SECRET);
            let next = next_secret(&path, *step)?;
            files::replace(&path, next.to_file().as_bytes(), Mode::Private)?;
            IssuedFiles { cluster: load_cluster(&place.dir)?, files: vec![path] }
        }
        CertCommand::Ca { place, days, renew: true, .. } => {
            let ca = load(&place.dir)?;
            let cert = ca.renew_own(days_from_now(*days)).map_err(Failure::usage)?;
            files::replace(&place.dir.join(CA), cert.as_bytes(), Mode::Public)?;
            IssuedFiles { cluster: ca.cluster().to_string(), files: vec![place.dir.join(CA)] }
        }
        CertCommand::Ca { place, days, renew: false, .. } => {
            let ca = authority(&place.dir, *days)?;
            IssuedFiles {
                cluster: ca.cluster().to_string(),
                files: [CA, CA_KEY, SECRET].map(|file| place.dir.join(file)).into(),
            }
        }
        CertCommand::Node { name, host, place, renewal: CertRenewal { renew: true, new_key }, days } => {
            if !host.is_empty() {
                return Err(Failure::usage(
                    "--host cannot be given with --renew: the names in the certificate stay as they are",
                ));
            }
            renew(&load(&place.dir)?, &place.dir, &check_name(name)?, *new_key, *days)?
        }
        CertCommand::Client { name, place, renewal: CertRenewal { renew: true, new_key }, days, .. } => {
            renew(&load(&place.dir)?, &place.dir, &check_name(name)?, *new_key, *days)?
        }
        CertCommand::Node { name, host, place, days, .. } => {
            let ca = load(&place.dir)?;
            let issued = ca.issue_node(&check_name(name)?, host, days_from_now(*days)).map_err(Failure::usage)?;
            write_pair(&ca, &place.dir, name, &issued)?
        }
        CertCommand::Client { name, scope: None, .. } if global.tenant.is_some() => {
            let next = format!("`rejoin cert client {name} --tenant TENANT --scope SCOPE` makes it of a tenant");
            return Err(Failure::usage("--tenant is given without --scope").next(next));
        }
        CertCommand::Client { name, scope, place, days, .. } => {
            let (ca, valid, owner) = (load(&place.dir)?, days_from_now(*days), check_name(name)?);
            let issued = match scope {
                Some(scope) => ca.issue_tenant(&tenant(global)?, *scope, &owner, valid),
                None => ca.issue_client(&owner, valid),
            };
            let issued = issued.map_err(Failure::usage)?;
            write_pair(&ca, &place.dir, name, &issued)?
        }
    };
    if out.json {
        return out.json(&issued_files);
    }
    note(format!("cluster {}", issued_files.cluster));
    issued_files.files.iter().try_for_each(|file| out.line(file.display()))
}

/// The tenant of a client's certificate.
fn tenant(global: &GlobalArgs) -> Result<Name, Failure> {
    let named = global.tenant.as_deref().unwrap_or(DEFAULT_TENANT);
    Name::new(named).map_err(|why| Failure::usage(format!("{named:?} cannot be a tenant's name: {why}")))
}

/// Makes a new cluster's authority and secret in a directory.
///
/// # Errors
/// A file exists, or cannot be written.
pub(crate) fn authority(dir: &Path, days: u32) -> Result<ClusterCa, Failure> {
    let ca = ClusterCa::create(ClusterId(rand::random()), days_from_now(days)).map_err(Failure::usage)?;
    let secret = drawn_secret();
    files::directory(dir)?;
    files::create_all(&[
        (dir.join(CA_KEY), ca.key_pem().as_bytes(), Mode::Private),
        (dir.join(CA), ca.cert_pem().as_bytes(), Mode::Public),
        (dir.join(SECRET), format!("{secret}\n").as_bytes(), Mode::Private),
    ])?;
    Ok(ca)
}

/// The secret of a file after one step more of its replacement.
fn next_secret(path: &Path, step: SecretStep) -> Result<Secret, Failure> {
    let unfit = |why: &dyn std::fmt::Display| Failure::usage(format!("{}: {why}", path.display()));
    let secret = Secret::from_file(&files::read(path)?).map_err(|why| unfit(&why))?;
    match step {
        SecretStep::Add => secret.adding(drawn_secret().as_bytes()).map_err(|why| {
            unfit(&why).next("`rejoin cert secret use` and `rejoin cert secret retire` end the replacement under way")
        }),
        SecretStep::Use => secret.using_the_other().map_err(|why| {
            unfit(&why).next("`rejoin cert secret add` draws a new secret; then give the file to every node")
        }),
        SecretStep::Retire => Ok(secret.without_others()),
    }
}

fn drawn_secret() -> String {
    rand::random::<[u8; 32]>().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The cluster of the authority in a directory, whose key may be elsewhere.
fn load_cluster(dir: &Path) -> Result<String, Failure> {
    let identity = Identity::client(&files::read_text(&dir.join(CA))?, None).map_err(Failure::usage)?;
    Ok(identity.cluster().to_string())
}

/// The authority in a directory.
///
/// # Errors
/// A file is missing, or the files do not belong together.
pub(crate) fn load(dir: &Path) -> Result<ClusterCa, Failure> {
    let advice = |failure: Failure| {
        failure.next(format!("`rejoin cert ca --dir {}` makes a new cluster's authority", dir.display()))
    };
    let cert = files::read_text(&dir.join(CA)).map_err(advice)?;
    let key = files::read_text(&dir.join(CA_KEY)).map_err(advice)?;
    ClusterCa::load(&cert, &key).map_err(Failure::usage)
}

fn write_pair(ca: &ClusterCa, dir: &Path, name: &str, issued: &Issued) -> Result<IssuedFiles, Failure> {
    let (cert, key) = (dir.join(format!("{name}.pem")), dir.join(format!("{name}-key.pem")));
    files::create_all(&[
        (key.clone(), issued.key_pem.as_bytes(), Mode::Private),
        (cert.clone(), issued.cert_pem.as_bytes(), Mode::Public),
    ])?;
    Ok(IssuedFiles { cluster: ca.cluster().to_string(), files: vec![cert, key] })
}

/// Replaces a certificate, and with `new_key` its key.
fn renew(ca: &ClusterCa, dir: &Path, name: &Name, new_key: bool, days: u32) -> Result<IssuedFiles, Failure> {
    let (cert, key) = (dir.join(format!("{name}.pem")), dir.join(format!("{name}-key.pem")));
    let advice = |failure: Failure| {
        failure.next(format!("`rejoin cert node {name}` makes a first certificate, without --renew"))
    };
    let old = files::read_text(&cert).map_err(advice)?;
    let old_key = if new_key { None } else { Some(files::read_text(&key).map_err(advice)?) };
    let issued = ca.renew(&old, old_key.as_deref(), days_from_now(days));
    let issued = issued.map_err(|why| Failure::usage(format!("{}: {why}", cert.display())))?;
    let mut issued_files = vec![cert.clone()];
    if new_key {
        // A node that reads between the two writes finds a mismatch, and reads again.
        files::replace(&key, issued.key_pem.as_bytes(), Mode::Private)?;
        issued_files.push(key);
    }
    files::replace(&cert, issued.cert_pem.as_bytes(), Mode::Public)?;
    Ok(IssuedFiles { cluster: ca.cluster().to_string(), files: issued_files })
}

pub(crate) fn days_from_now(days: u32) -> Validity {
    Validity::days(SystemTime::now(), days.min(36_500))
}

fn check_name(name: &str) -> Result<Name, Failure> {
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
        let issued_files = authority(folder.path(), 10).unwrap();
        assert_eq!(load(folder.path()).unwrap().cluster(), issued_files.cluster());
        assert!(authority(folder.path(), 10).is_err());
        assert_eq!(load(folder.path()).unwrap().cluster(), issued_files.cluster());
        assert_eq!(files::read(&folder.path().join(SECRET)).unwrap().len(), 65);
    }

    #[test]
    fn names_that_are_none_or_the_authoritys_are_refused() {
        assert!(check_name("../n1").is_err() && check_name("ca").is_err() && check_name("").is_err());
        assert!(check_name("n1-key").is_err(), "its certificate would be the file of n1's key");
        assert_eq!(check_name("n1").unwrap().as_str(), "n1");
    }
}
