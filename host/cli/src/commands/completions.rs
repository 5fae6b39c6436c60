//! `completions`: a shell's completion script.

use clap::CommandFactory;

use crate::args::{Cli, CompletionsArgs};
use crate::failure::Failure;
use crate::output::Output;

/// Prints the script. `--json` does not change it: it is what the shell reads.
///
/// # Errors
/// stdout cannot be written.
pub(crate) fn run(out: Output, args: &CompletionsArgs) -> Result<(), Failure> {
    out.bytes(&script(args.shell))
}

fn script(shell: clap_complete::Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "rejoin", &mut script);
    script
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    #[test]
    fn every_shell_completes_commands_and_options() {
        for shell in clap_complete::Shell::value_variants() {
            let script = String::from_utf8(script(*shell)).unwrap();
            for word in ["bucket", "wait-healthy", "key-base64", "completions"] {
                assert!(script.contains(word), "{shell} does not know {word}");
            }
        }
    }
}
