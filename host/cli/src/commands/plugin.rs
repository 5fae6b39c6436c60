//! `plugin build|list`; [`push`] has `plugin push`, [`show`] has `plugin show`, [`activation`] has
//! `plugin activate|rollback`, [`trial`] has `plugin shadow|fetch`, [`diff`] has `plugin diff`, [`new`] has
//! `plugin new`, [`laws`] has `plugin test`, [`one`] has `plugin run`, [`merge_bench`] has `plugin bench`, [`signing`]
//! has `plugin keygen|sign`, [`replay`] and [`undo`] have those.

use std::path::{Path, PathBuf};

use rejoin_client::admin::PluginDigest;
use rejoin_merge::{
    CancelToken, ChildCompiler, Compiler, Host, HostConfig, ModuleLimits, Plugin as Compiled, build, escape_untrusted,
};

use crate::args::PluginCommand;
use crate::commands::component::{not_built, rejected, stem};
use crate::commands::delete;
use crate::commands::json::Plugin;
use crate::commands::{
    activation, diff, laws, merge_bench, new, push, readiness, replay, run as one, show, signing, trial, undo,
};
use crate::connect::connect;
use crate::failure::Failure;
use crate::files::{self, Mode};
use crate::global::GlobalArgs;
use crate::output::{Output, note};
use crate::progress::Bar;

/// The most imports that `plugin build` names of those that become traps.
const NAMED_IMPORTS: usize = 8;

pub(crate) async fn run(global: &GlobalArgs, out: Output, command: PluginCommand) -> Result<(), Failure> {
    match command {
        PluginCommand::New { dir, sdk } => new::run(out, &dir, &sdk),
        PluginCommand::Build { dir, output, offline, module_bytes } => {
            let limits = ModuleLimits::for_bytes(module_bytes);
            make(out, |component| compile(&compiler(module_bytes), &limits, component), &dir, output, offline)
        }
        PluginCommand::Test(args) => laws::run(out, &compiler(args.module_bytes), &args),
        PluginCommand::Bench(args) => merge_bench::run(out, &compiler(args.module_bytes), &args),
        PluginCommand::Run(args) => one::run(global, out, &compiler(args.module_bytes), &args).await,
        PluginCommand::Push(args) => push::run(global, out, &args).await,
        PluginCommand::Keygen(args) => signing::keygen(out, &args),
        PluginCommand::Sign(args) => signing::sign(global, out, &args),
        PluginCommand::Delete { digest, how } => delete::plugin(global, out, digest, how).await,
        PluginCommand::Restore { digest } => {
            let (_, behind) = connect(global).await?.admin().restore_plugin(digest).await?;
            delete::restored("plugin", &digest.to_string(), &behind);
            Ok(())
        }
        PluginCommand::Release { digest } => release(global, out, digest).await,
        PluginCommand::Activate(args) => activation::activate(global, out, &args).await,
        PluginCommand::Shadow(args) => trial::shadow(global, out, &args).await,
        PluginCommand::Diff(args) => diff::run(global, out, &args).await,
        PluginCommand::Fetch(args) => trial::fetch(global, out, &args).await,
        PluginCommand::Rollback { bucket, to, force } => {
            activation::roll_back(global, out, (&bucket, to.as_deref()), force).await
        }
        PluginCommand::Replay { file } => replay::run(out, compiler, &file),
        PluginCommand::Undo(args) => undo::run(global, out, &args).await,
        PluginCommand::Show { plugin } => show::run(global, out, &plugin).await,
        PluginCommand::List => {
            let plugins = readiness::list(&connect(global).await?.admin()).await?;
            if out.json {
                return out.json(&plugins);
            }
            let row = |p: Plugin| {
                let folds = if p.self_causal { "yes" } else { "no" };
                let laws = p.unchecked.map_or_else(|| "checked".into(), |by| format!("unchecked by {by}"));
                let nodes = readiness::summary(p.nodes.as_deref().unwrap_or_default());
                vec![p.name, p.version, p.bytes.to_string(), folds.into(), laws, p.state, nodes, p.digest]
            };
            out.table(
                &["plugin", "version", "bytes", "self-causal", "laws", "state", "nodes", "digest"],
                plugins.into_iter().map(row).collect(),
            )
        }
    }
}

/// Builds a guest crate, or makes a component of the core module in a file, and checks the component with `compile`, as
/// a node does.
fn make(
    out: Output,
    compile: impl Fn(&[u8]) -> Result<Compiled, Failure>,
    dir: &Path,
    output: Option<PathBuf>,
    offline: bool,
) -> Result<(), Failure> {
    let bar = Bar::spinner(&format!("building {}", dir.display()));
    if bar.is_none() {
        note(format!("building {} …", dir.display()));
    }
    let made = match dir.is_file() {
        true => files::read(dir)?,
        false => {
            build::core_module(dir, &build::Options { target_dir: None, offline }).map_err(|why| not_built(&why))?
        }
    };
    let trapping = build::trapping_imports(&made);
    let component = build::component_in(made).map_err(|why| not_built(&why))?;
    bar.iter().for_each(|bar| bar.message("compiling the component"));
    let compiled = compile(&component)?;
    drop(bar);
    let file = match output {
        Some(file) => file,
        None => default_file(dir)?,
    };
    files::replace(&file, &component, Mode::Public)?;
    trapping_note(&trapping).into_iter().for_each(note);
    let shape = shape(&compiled, &component, &file);
    if out.json {
        return out.json(&shape);
    }
    note(format!("{} {}, {} bytes, in {}", shape.name, shape.version, shape.bytes, file.display()));
    note(format!("next: `rejoin plugin test {0}`, then `rejoin plugin push {0}`", file.display()));
    out.line(&shape.digest)
}

/// That the component traps where its module has called wasm-bindgen. The names are those of the module.
fn trapping_note(imports: &[String]) -> Option<String> {
    let named: Vec<String> = imports.iter().take(NAMED_IMPORTS).map(|name| escape_untrusted(name)).collect();
    let more = imports.len() - named.len();
    let and = if more > 0 { format!(", and {more} more") } else { String::new() };
    let named = named.join(", ");
    (!imports.is_empty()).then(|| format!("{} imports of wasm-bindgen become traps: {named}{and}", imports.len()))
}

/// The compiler of a node that accepts components of `module_bytes`: a process of its own, with limits.
fn compiler(module_bytes: usize) -> Compiler {
    Compiler::Child(ChildCompiler::for_bytes(module_bytes))
}

/// Compiles a component under the limits of a node.
fn compile(compiler: &Compiler, limits: &ModuleLimits, component: &[u8]) -> Result<Compiled, Failure> {
    let config = HostConfig { instances: 1, ..HostConfig::default() };
    let host = Host::new(config).map_err(Failure::usage)?;
    let compiled = compiler.compile(&host, component, limits, &CancelToken::default());
    compiled.and_then(|compiled| host.load(&compiled)).map_err(|why| rejected(&why))
}

fn default_file(dir: &Path) -> Result<PathBuf, Failure> {
    let full = dir.canonicalize().map_err(|why| Failure::file(dir, "read", &why))?;
    let name = full
        .file_name()
        .ok_or_else(|| Failure::usage(format!("{} has no name: give the file with -o", full.display())))?;
    Ok(PathBuf::from(name).with_extension("wasm"))
}

fn shape(compiled: &Compiled, component: &[u8], file: &Path) -> Plugin {
    let (name, version, self_causal) = match compiled.metadata() {
        Some(metadata) => (metadata.name.clone(), metadata.version.clone(), metadata.self_causal),
        None => (stem(file), "-".into(), false),
    };
    let bytes = u64::try_from(component.len()).unwrap_or(u64::MAX);
    Plugin {
        digest: compiled.digest().to_string(),
        name,
        version,
        bytes,
        self_causal,
        quarantined: None,
        unchecked: None,
        transcripts: Vec::new(),
        nodes: None,
        provenance: None,
        reap_ms: None,
        state: "good".into(),
        file: Some(file.display().to_string()),
    }
}

async fn release(global: &GlobalArgs, out: Output, digest: PluginDigest) -> Result<(), Failure> {
    let plugin = Plugin::from(&connect(global).await?.admin().release_plugin(digest).await?);
    if out.json {
        return out.json(&plugin);
    }
    note(format!("the merges of {} {} are run", plugin.name, plugin.version));
    out.line(&plugin.digest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Exit;

    #[test]
    fn what_is_no_plugin_is_rejected_with_its_own_exit_code() {
        let limits = ModuleLimits::default();
        let failure = compile(&Compiler::InProcess, &limits, b"no component").unwrap_err();
        assert_eq!(failure.exit, Exit::Rejected);
        let missing = make(
            Output { json: false, color: false },
            |_| unreachable!("there is no crate"),
            Path::new("no/such/crate"),
            None,
            true,
        )
        .unwrap_err();
        assert_eq!(missing.exit, Exit::Usage);
    }

    #[test]
    fn imports_that_become_traps_are_named() {
        let names = |count: usize| (0..count).map(|at| format!("__wbg_{at}")).collect::<Vec<_>>();
        assert_eq!(trapping_note(&[]), None);
        let two = "2 imports of wasm-bindgen become traps: __wbg_0, __wbg_1";
        assert_eq!(trapping_note(&names(2)).as_deref(), Some(two));
        let many = trapping_note(&names(NAMED_IMPORTS + 3)).unwrap();
        assert!(many.starts_with("11 imports") && many.ends_with("__wbg_7, and 3 more"), "{many}");
        let odd = trapping_note(&["\u{1b}[2J".into()]).unwrap();
        assert!(!odd.contains('\u{1b}'), "{odd}");
    }

    #[test]
    fn a_core_module_of_another_compiler_becomes_a_component() {
        let dir = tempfile::tempdir().unwrap();
        let (core, made) = (dir.path().join("core.wasm"), dir.path().join("made.wasm"));
        std::fs::write(&core, crate::ready::CART.core).unwrap();
        let check = |bytes: &[u8]| compile(&Compiler::InProcess, &ModuleLimits::default(), bytes);
        make(Output { json: false, color: false }, check, &core, Some(made.clone()), true).unwrap();
        assert!(std::fs::read(&made).unwrap() == crate::ready::CART.component().unwrap(), "as of a guest crate");
    }

    #[test]
    fn the_embedded_cart_is_a_plugin_that_says_its_name() {
        let component = crate::ready::CART.component().unwrap();
        let shape = shape(
            &compile(&Compiler::InProcess, &ModuleLimits::default(), &component).unwrap(),
            &component,
            Path::new("x/other.wasm"),
        );
        assert_eq!((shape.name.as_str(), shape.self_causal), ("cart", true));
        assert_eq!(shape.digest, rejoin_merge::digest_of(&component).to_string());
    }
}
