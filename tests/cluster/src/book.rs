//! The commands that documents show: taken out of their text and run.

use std::path::Path;
use std::process::Command;

use crate::cli::{Ran, run};
use crate::process::sibling;

/// The fenced `sh` blocks of a Markdown text, in order. A block that is fenced as `sh no-run` is left out: it is for
/// the reader's eyes.
#[must_use]
pub fn sh_blocks(markdown: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut open: Option<(bool, String)> = None;
    for line in markdown.lines() {
        match (&mut open, line.trim_start().strip_prefix("```")) {
            (None, Some(info)) => open = Some((info.trim() == "sh", String::new())),
            (Some(_), Some(_)) => blocks.extend(open.take().filter(|(runs, _)| *runs).map(|(_, block)| block)),
            (Some((_, block)), None) => {
                block.push_str(line);
                block.push('\n');
            }
            (None, None) => {}
        }
    }
    blocks
}

/// Runs blocks in order in one shell, as a person would type them, with the `rejoin` that was built here. The first
/// command that fails ends it.
///
/// What the blocks have started in the background is ended with the shell.
///
/// # Panics
/// If there is no shell.
#[must_use]
pub fn type_in(blocks: &[String], dir: &Path, before: &str) -> Ran {
    let programs = sibling("rejoin").parent().map(Path::to_path_buf).unwrap_or_default();
    let mut script = String::from("set -eu\ntrap 'kill $(jobs -p) 2>/dev/null || true; wait || true' EXIT\n");
    script.push_str(before);
    for block in blocks {
        script.push_str(&format!("\n{block}\n"));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let paths = std::iter::once(programs).chain(std::env::split_paths(&path));
    let mut command = Command::new("bash");
    command.arg("-c").arg(script).env("PATH", std::env::join_paths(paths).expect("paths without colons"));
    run(command, dir, None, b"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sh_blocks_are_taken_and_in_order() {
        let text = "a\n```sh\none\ntwo\n```\n```toml\nx = 1\n```\n```sh no-run\nno\n```\n- in a list\n  ```sh\n  \
            three\n  ```\n";
        assert_eq!(sh_blocks(text), ["one\ntwo\n", "  three\n"]);
    }
}
