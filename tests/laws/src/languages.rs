//! The carts in C and in JavaScript: their components, made with the commands of the book where the tools are.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rejoin_merge::build::componentize;

/// A language that a cart is written in, besides Rust.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Language {
    /// Built with clang and wasm-ld.
    C,
    /// Built with node, in a directory that `cargo xtask guests` has filled with packages of npm.
    JavaScript,
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::C => "C",
            Self::JavaScript => "JavaScript",
        })
    }
}

/// The component of the cart in that language. `None` where the tools are not, which is said on stderr.
///
/// # Panics
/// If the tools are there and the cart does not build.
#[must_use]
pub fn cart_in(language: Language) -> Option<Vec<u8>> {
    if let Err(why) = tools_of(language) {
        say(&format!("skipped: the cart in {language}: {why}"));
        return None;
    }
    let built = match language {
        Language::C => in_c(),
        Language::JavaScript => in_javascript(),
    };
    Some(built.unwrap_or_else(|why| panic!("the cart in {language} does not build: {why}")))
}

/// Where the workspace is.
fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Where `cargo xtask guests` installs the packages of the cart in JavaScript: in `guests` beside the directory of the
/// profile, from whose `deps` this test runs.
fn packages() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    program.ancestors().nth(3).unwrap_or(Path::new("target")).join("guests/cart-js")
}

fn tools_of(language: Language) -> Result<(), String> {
    let runs = |program: &str| {
        let mut command = Command::new(program);
        command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let ran = command.status().is_ok_and(|status| status.success());
        if ran { Ok(()) } else { Err(format!("`{program} --version` does not run")) }
    };
    match language {
        Language::C => runs("clang").and_then(|()| runs("wasm-ld")),
        Language::JavaScript => {
            runs("node")?;
            let folder = packages().join("node_modules");
            let there = folder.is_dir();
            if there { Ok(()) } else { Err("its packages are not installed; `cargo xtask guests` does that".into()) }
        }
    }
}

/// The command of `write-a-plugin-in-c.md`.
fn in_c() -> Result<Vec<u8>, String> {
    let dir = tempfile::tempdir().map_err(|why| why.to_string())?;
    let core = dir.path().join("cart.wasm");
    let mut clang = Command::new("clang");
    clang.current_dir(workspace());
    clang.args(["--target=wasm32-unknown-unknown", "-mbulk-memory", "-O2", "-ffreestanding", "-nostdlib"]);
    clang.args(["-Wall", "-Wextra", "-Werror", "-Iguest-sdk/c", "-Iguest-sdk/c/include"]);
    clang.args(["-Wl,--no-entry,--strip-all,--stack-first", "guest-sdk/c/rejoin.c"]);
    clang.args(["cart.c", "abilities.c", "generated/cart.c", "generated/cart_component_type.o"].map(of_cart_in_c));
    run(clang.arg("-o").arg(&core))?;
    componentize(&read(&core)?).map_err(|why| why.to_string())
}

fn of_cart_in_c(file: &str) -> PathBuf {
    Path::new("plugins/cart-c").join(file)
}

/// The commands of `write-a-plugin-in-javascript.md`, without the installation of the packages.
fn in_javascript() -> Result<Vec<u8>, String> {
    let (source, place) = (workspace().join("plugins/cart-js"), packages());
    let dependencies = place.join("wit/deps");
    std::fs::create_dir_all(&dependencies).map_err(|why| format!("{}: {why}", dependencies.display()))?;
    for file in ["cart.js", "build.mjs", "wit/cart.wit"] {
        std::fs::copy(source.join(file), place.join(file)).map_err(|why| format!("{file}: {why}"))?;
    }
    let interfaces = workspace().join("guest-sdk/wit/rejoin.wit");
    std::fs::copy(&interfaces, dependencies.join("rejoin.wit")).map_err(|why| format!("rejoin.wit: {why}"))?;
    run(Command::new("node").current_dir(&place).arg("build.mjs"))?;
    read(&place.join("cart.wasm"))
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output().map_err(|why| why.to_string())?;
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    if output.status.success() { Ok(()) } else { Err(format!("{}\n{}", output.status, said.concat())) }
}

fn read(file: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(file).map_err(|why| format!("{}: {why}", file.display()))
}

/// Says something that the test harness does not hide.
fn say(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "{text}");
}
