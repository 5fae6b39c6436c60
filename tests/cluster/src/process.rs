//! One `rejoin serve`, as a process of its own.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// The `rejoin` that was built beside this test.
///
/// # Panics
/// If it was not: `cargo xtask test` does so.
#[must_use]
pub fn binary() -> PathBuf {
    sibling("rejoin")
}

/// A program of the workspace that was built beside this test.
///
/// # Panics
/// If it was not.
pub(crate) fn sibling(program: &str) -> PathBuf {
    let this = std::env::current_exe().expect("a test knows where it is");
    // A test lies in a folder of the profile's, a binary beside the others.
    let beside = this.ancestors().skip(1).take(2).map(|folder| folder.join(program));
    let path =
        beside.reduce(|first, second| if first.is_file() { first } else { second }).expect("it lies in a folder");
    assert!(
        path.is_file(),
        "{} is not there: `cargo build --workspace` makes it, and `cargo xtask test` does that first",
        path.display()
    );
    path
}

/// A node's process. Dropped, it is killed; it also ends with the thread that started it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a node. What it says is added to a file `log` next to the configuration, under its name.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn serve(config: &Path) -> Self {
        Self::serve_by(Command::new(binary()), config)
    }

    /// As [`Process::serve`], by a command that ends in `rejoin`: it may enter a namespace first. It must become
    /// `rejoin` and start no second process.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn serve_by(mut command: Command, config: &Path) -> Self {
        let log = config.with_extension("log");
        let file = OpenOptions::new().create(true).append(true).open(&log).expect("writable");
        let copy = file.try_clone().expect("a file can be opened twice");
        command.args(["serve", "--with-parent", "--color", "never", "--config"]).arg(config);
        command.env_remove("REJOIN_PROFILE").stdin(Stdio::null()).stdout(file).stderr(copy);
        Self { child: command.spawn().expect("rejoin can be started"), log }
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has said so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Kills it with SIGKILL and waits until it is gone.
    ///
    /// # Panics
    /// If it had ended by itself before.
    pub fn kill(mut self) {
        let ended = self.child.try_wait().expect("it can be asked");
        assert_eq!(ended, None, "it has ended by itself:\n{}", self.log());
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it can be waited for");
    }

    /// Asks it to stop with SIGTERM and waits until it has.
    ///
    /// # Panics
    /// If it cannot be asked.
    #[must_use]
    pub fn stop(mut self) -> ExitStatus {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).expect("it can be asked");
        self.child.wait().expect("it can be waited for")
    }

    /// Waits until it has ended by itself.
    ///
    /// # Panics
    /// If it cannot be waited for.
    #[must_use]
    pub fn ended(mut self) -> ExitStatus {
        self.child.wait().expect("it can be waited for")
    }

    /// Sends it SIGHUP.
    ///
    /// # Panics
    /// If it cannot be sent.
    pub fn hang_up(&self) {
        kill_process(Pid::from_child(&self.child), Signal::HUP).expect("it can be sent");
    }

    /// Stops it with SIGSTOP, or lets it go on with SIGCONT.
    ///
    /// # Panics
    /// If it cannot be sent.
    pub fn pause(&self, paused: bool) {
        let signal = if paused { Signal::STOP } else { Signal::CONT };
        kill_process(Pid::from_child(&self.child), signal).expect("it can be sent");
    }

    /// Whether it still runs.
    ///
    /// # Panics
    /// If the system does not say.
    #[must_use]
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().expect("it can be asked").is_none()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may be gone, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
