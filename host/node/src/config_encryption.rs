//! The `[encryption]` table of the configuration: where the keys come from that values are encrypted with on disk.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::config::ConfigError;

/// The most seconds that the command may be given.
const MOST_SECONDS: u32 = 600;

/// The keys of a node, which may have others than its peers. Values are encrypted on its disk only.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[non_exhaustive]
pub struct EncryptionConfig {
    /// A file of keys, as `rejoin encryption add` makes it. Other users must not be able to read it.
    pub key_file: Option<PathBuf>,
    /// A program and its arguments, in place of a file: it prints what the file would have. A program without a slash
    /// is looked for in the path.
    #[serde(default)]
    pub key_command: Vec<String>,
    /// How long the program may take, in seconds.
    #[serde(default = "command_seconds")]
    pub key_command_seconds: u32,
    /// Writes values in the clear, and those that are encrypted too, in the background. The keys are needed until that
    /// is done.
    #[serde(default)]
    pub off: bool,
}

fn command_seconds() -> u32 {
    10
}

impl EncryptionConfig {
    /// Paths are relative to `base`.
    pub(crate) fn within(self, base: &Path) -> Self {
        Self { key_file: self.key_file.map(|file| base.join(file)), ..self }
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let invalid =
            |key: &str, message: String| Err(ConfigError::Invalid { key: format!("encryption.{key}"), message });
        if self.key_file.is_some() != self.key_command.is_empty() {
            let message = "give one of the two: a file of keys, or a command that prints what it would have".to_owned();
            return invalid("key_file, encryption.key_command", message);
        }
        if self.key_command.first().is_some_and(String::is_empty) {
            return invalid("key_command", "its first word is the program, and must not be empty".to_owned());
        }
        if !(1..=MOST_SECONDS).contains(&self.key_command_seconds) {
            return invalid("key_command_seconds", format!("must be 1 to {MOST_SECONDS}"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_from_one_place() {
        let read = |text: &str| toml::from_str::<EncryptionConfig>(text).expect("a table").within(Path::new("/etc"));
        let refused = |text: &str| read(text).check().expect_err("must be refused").to_string();
        let file = read("key_file = \"keys\"");
        assert!(file.check().is_ok() && file.key_file == Some("/etc/keys".into()) && !file.off);
        assert!(read("key_command = [\"vault\", \"read\"]\noff = true").check().is_ok());
        assert!(refused("").starts_with("encryption.key_file, encryption.key_command: give one of the two"));
        assert!(refused("key_file = \"keys\"\nkey_command = [\"cat\"]").contains("give one of the two"));
        assert!(refused("key_command = [\"\"]").starts_with("encryption.key_command: "));
        for seconds in [0, 601] {
            let refused = refused(&format!("key_file = \"keys\"\nkey_command_seconds = {seconds}"));
            assert_eq!(refused, "encryption.key_command_seconds: must be 1 to 600");
        }
    }
}
