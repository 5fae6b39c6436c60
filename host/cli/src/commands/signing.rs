//! `plugin keygen|sign` and `tenant signers`: who vouches for the plugins of a tenant.

use std::path::{Path, PathBuf};

use serde::Serialize;

use rejoin_client::admin::{Name, PluginSignature, SignerKey};
use rejoin_merge::digest_of;
use rejoin_proto::access::DEFAULT_TENANT;
use rejoin_wire::SigningKey;

use crate::connect::builder;
use crate::failure::Failure;
use crate::files::{self, Mode};
use crate::global::GlobalArgs;
use crate::output::{Output, note};
use crate::signing_args::{KeygenArgs, SignArgs, SignersCommand};

/// `plugin keygen` and `plugin sign`.
#[derive(Serialize, Debug)]
struct Made {
    signer: String,
    /// The file that was made: of the private key, or of the signature.
    file: String,
}

fn with(path: &Path, extension: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(extension);
    PathBuf::from(name)
}

pub(crate) fn keygen(out: Output, args: &KeygenArgs) -> Result<(), Failure> {
    let pem = SigningKey::generate().map_err(Failure::usage)?;
    let key = SigningKey::from_pem(&pem).map_err(Failure::usage)?.public();
    let (public, text) = (with(&args.file, ".pub"), format!("{key}\n"));
    let files = [(args.file.clone(), pem.as_bytes(), Mode::Private), (public.clone(), text.as_bytes(), Mode::Public)];
    files::create_all(&files).map_err(|why| why.next("name another file: `rejoin plugin keygen FILE`"))?;
    if out.json {
        return out.json(&Made { signer: key.to_string(), file: args.file.display().to_string() });
    }
    note(format!("{} is secret: whoever has it can sign plugins", args.file.display()));
    note(format!("next: `rejoin tenant signers TENANT add {}`", public.display()));
    out.line(key)
}

pub(crate) fn sign(global: &GlobalArgs, out: Output, args: &SignArgs) -> Result<(), Failure> {
    let tenant = global.tenant.as_deref().unwrap_or(DEFAULT_TENANT);
    let tenant = Name::new(tenant).map_err(|why| Failure::usage(format!("--tenant {tenant}: {why}")))?;
    let digest = digest_of(&files::read(&args.file)?);
    let key = SigningKey::from_pem(&files::read_text(&args.key)?);
    let key = key.map_err(|why| Failure::usage(format!("{}: {why}", args.key.display())))?;
    let signature = key.sign(&tenant, &digest);
    let file = args.output.clone().unwrap_or_else(|| with(&args.file, ".sig"));
    files::replace(&file, format!("{signature}\n").as_bytes(), Mode::Public)?;
    if out.json {
        return out.json(&Made { signer: signature.signer.to_string(), file: file.display().to_string() });
    }
    note(format!("plugin {digest} is signed for tenant {tenant}, in {}", file.display()));
    note(format!("next: `rejoin plugin push {}`", args.file.display()));
    out.line(signature.signer)
}

/// The signature that goes with a component: of the file that was named, or of that beside the component.
pub(crate) fn signature_of(component: &Path, named: Option<&Path>) -> Result<Option<PluginSignature>, Failure> {
    let beside = with(component, ".sig");
    let file = match named {
        Some(file) => file,
        None if beside.exists() => &beside,
        None => return Ok(None),
    };
    let signature = files::read_text(file)?.parse::<PluginSignature>();
    signature.map(Some).map_err(|why| Failure::usage(format!("{}: {why}", file.display())))
}

/// The public key of a text, or of the file of that name.
fn key_of(named: &str) -> Result<SignerKey, Failure> {
    if let Ok(key) = named.parse() {
        return Ok(key);
    }
    let text = files::read_text(Path::new(named))?;
    text.trim().parse::<SignerKey>().map_err(|why| Failure::usage(format!("{named}: {why}")))
}

pub(crate) async fn signers(
    global: &GlobalArgs,
    out: Output,
    tenant: &str,
    command: SignersCommand,
) -> Result<(), Failure> {
    // Read before anybody is asked.
    let change = match &command {
        SignersCommand::Add { key } | SignersCommand::Remove { key } => Some(key_of(key)?),
        SignersCommand::List => None,
    };
    let admin = builder(global)?.tenant(tenant).connect().await?.admin();
    let keys = match (command, change) {
        (SignersCommand::Add { .. }, Some(key)) => admin.add_signer(key).await?,
        (SignersCommand::Remove { .. }, Some(key)) => admin.remove_signer(key).await?,
        _ => admin.signers().await?,
    };
    let keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
    if out.json {
        return out.json(&keys);
    }
    note(match keys.len() {
        0 => format!("nobody signs: tenant {tenant} takes every plugin"),
        1 => format!("tenant {tenant} takes only plugins that this key has signed"),
        _ => format!("tenant {tenant} takes only plugins that one of these keys has signed"),
    });
    keys.iter().try_for_each(|key| out.line(key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command, PluginCommand};
    use clap::Parser;

    const QUIET: Output = Output { json: false, color: false };

    fn run(line: &[&str]) -> Result<(), Failure> {
        let cli = Cli::try_parse_from(["rejoin", "plugin"].iter().chain(line)).expect("a command line");
        match cli.command {
            Command::Plugin(PluginCommand::Keygen(args)) => keygen(QUIET, &args),
            Command::Plugin(PluginCommand::Sign(args)) => sign(&cli.global, QUIET, &args),
            _ => panic!("another command"),
        }
    }

    #[test]
    fn a_key_is_made_once_and_signs_for_a_tenant() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = |name: &str| dir.path().join(name).display().to_string();
        run(&["keygen", &path("key.pem")]).expect("new files");
        let again = run(&["keygen", &path("key.pem")]).expect_err("nothing is overwritten");
        assert!(again.to_string().contains("exists already"), "{again}");
        let key = key_of(&path("key.pem.pub")).expect("a public key");
        assert_eq!(key_of(&key.to_string()).expect("its text"), key);
        std::fs::write(path("cart.wasm"), b"component").expect("it is ours");
        assert_eq!(signature_of(Path::new(&path("cart.wasm")), None).expect("there is none"), None);
        run(&["sign", &path("cart.wasm"), "--key", &path("key.pem"), "--tenant", "shop"]).expect("signed");
        let signature = signature_of(Path::new(&path("cart.wasm")), None).expect("a file").expect("beside it");
        let (shop, digest) = (Name::new("shop").expect("a name"), digest_of(b"component"));
        assert!(signature.signer == key && rejoin_wire::is_signed(&signature, &shop, &digest));
        assert!(!rejoin_wire::is_signed(&signature, &Name::new(DEFAULT_TENANT).expect("a name"), &digest));
        let named = signature_of(Path::new(&path("cart.wasm")), Some(Path::new(&path("key.pem.pub"))));
        assert!(named.expect_err("that is no signature").to_string().contains("plugin sign"));
    }
}
