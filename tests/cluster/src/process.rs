//! Runs `rejoin serve` in a process.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// The `rejoin` that was built beside this test.
///
/// # Panics
/// If it was not built. `cargo xtask test` builds it.
#[must_use]
pub fn binary() -> PathBuf {
    sibling("rejoin")
}

/// A program of the workspace, built beside this test.
///
/// # Panics
/// If it was not built.
pub(crate) fn sibling(program: &str) -> PathBuf {
    let this = std::env::current_exe().expect("a test knows where it is");
    // Tests are in a subfolder of the profile's folder, binaries in the folder itself.
    let beside = this.ancestors().skip(1).take(2).map(|folder| folder.join(program));
    let path = beside.reduce(|first, second| if first.is_file() { first } else { second }).expect("it lies in a folder");
    assert!(path.is_file(), "{} is not there: `cargo build --workspace` makes it, and `cargo xtask test` does that first", path.display());
    path
}

/// A node's process. It is killed when this is dropped, and ends with the thread that started it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a node. Its output is appended to a file beside the configuration, with the extension `log`.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn serve(config: &Path) -> Self {
        let log = config.with_extension("log");
        let file = OpenOptions::new().create(true).append(true).open(&log).expect("writable");
        let copy = file.try_clone().expect("a file can be opened twice");
        let mut command = Command::new(binary());
        command.args(["serve", "--with-parent", "--color", "never", "--config"]).arg(config);
        command.env_remove("REJOIN_PROFILE").stdin(Stdio::null()).stdout(file).stderr(copy);
        Self { child: command.spawn().expect("rejoin can be started"), log }
    }

    /// Its log so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Kills it with SIGKILL and waits until it is gone.
    ///
    /// # Panics
    /// If it has ended by itself.
    pub fn kill(mut self) {
        let ended = self.child.try_wait().expect("it can be asked");
        assert_eq!(ended, None, "it has ended by itself:\n{}", self.log());
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it can be waited for");
    }

    /// Stops it with SIGTERM and waits for its end.
    ///
    /// # Panics
    /// If the signal cannot be sent.
    #[must_use]
    pub fn stop(mut self) -> ExitStatus {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).expect("it can be asked");
        self.child.wait().expect("it can be waited for")
    }

    /// Sends it SIGHUP.
    ///
    /// # Panics
    /// If the signal cannot be sent.
    pub fn hang_up(&self) {
        kill_process(Pid::from_child(&self.child), Signal::HUP).expect("it can be sent");
    }

    /// Whether it still runs.
    ///
    /// # Panics
    /// If the system cannot tell.
    #[must_use]
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().expect("it can be asked").is_none()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
