//! A private cluster of `rejoin serve` processes for `demo` and `bench`. The processes end with their parent, however
//! that ends.

use std::fs::File;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use crate::failure::Failure;
use crate::files;
use crate::local_cluster::{LocalCluster, LocalNode};

/// The time for a process to stop before it is killed.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How often the processes are checked.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// Lines of each log that are shown when something fails.
const LAST_LINES: usize = 12;

/// The files and processes of the cluster. Both are removed on drop.
pub(crate) struct Processes {
    pub(crate) cluster: LocalCluster,
    running: Vec<(String, Child)>,
}

impl Processes {
    /// Makes the files of a cluster of that many nodes on free ports, in a new temporary directory.
    ///
    /// # Errors
    /// A file cannot be written, or no port is free.
    pub(crate) fn prepare(purpose: &str, nodes: u8) -> Result<Self, Failure> {
        Self::write(new_cluster(purpose, nodes)?)
    }

    /// As [`Processes::prepare`], with fault injection on the admin ports.
    ///
    /// # Errors
    /// As [`Processes::prepare`].
    pub(crate) fn prepare_with_faults(purpose: &str, nodes: u8) -> Result<Self, Failure> {
        Self::write(new_cluster(purpose, nodes)?.with_faults())
    }

    /// As [`Processes::prepare`], where only the first `founders` nodes begin the cluster.
    ///
    /// # Errors
    /// As [`Processes::prepare`].
    pub(crate) fn prepare_growing(purpose: &str, nodes: u8, founders: usize) -> Result<Self, Failure> {
        Self::write(new_cluster(purpose, nodes)?.with_founders(founders))
    }

    fn write(cluster: LocalCluster) -> Result<Self, Failure> {
        // Owned from here on, so that the directory is also removed if writing fails.
        let this = Self { cluster, running: Vec::new() };
        this.cluster.write()?;
        Ok(this)
    }

    /// Starts all processes. Returns their ids.
    ///
    /// # Errors
    /// A process cannot be started.
    pub(crate) fn start(&mut self) -> Result<Vec<u32>, Failure> {
        let nodes = self.cluster.nodes().to_vec();
        nodes.into_iter().map(|node| self.start_one(node)).collect()
    }

    /// Starts the process of a node that does not run. Returns its id.
    ///
    /// # Errors
    /// It cannot be started.
    pub(crate) fn start_one(&mut self, node: LocalNode) -> Result<u32, Failure> {
        let rejoin = std::env::current_exe()
            .map_err(|why| Failure::usage(format!("the path of this program cannot be found: {why}")))?;
        let threads = threads_each(self.cluster.nodes().len()).to_string();
        let log = self.log(node);
        let written = |why: std::io::Error| Failure::file(&log, "written", &why);
        // A node that is started again goes on in its log.
        let file = File::options().create(true).append(true).open(&log).map_err(written)?;
        let copy = file.try_clone().map_err(written)?;
        let mut command = Command::new(&rejoin);
        command
            .args(["serve", "--with-parent", "--threads", &threads, "--color", "never", "--config"])
            .arg(self.cluster.config(node));
        command.stdin(Stdio::null()).stdout(file).stderr(copy).kill_on_drop(true);
        // Ctrl-C must reach the parent only, which then stops them.
        command.process_group(0);
        let child = command.spawn().map_err(|why| Failure::file(&rejoin, "started", &why))?;
        let id = child.id().unwrap_or_default();
        self.running.push((node.name(), child));
        Ok(id)
    }

    /// Kills the process of a node, as `kill -9` does, and waits for its end.
    ///
    /// # Errors
    /// It does not run, or cannot be killed.
    pub(crate) async fn kill(&mut self, node: LocalNode) -> Result<(), Failure> {
        let name = node.name();
        let at = self.running.iter().position(|(running, _)| *running == name);
        let mut child =
            at.map(|at| self.running.remove(at).1).ok_or_else(|| Failure::usage(format!("{name} does not run")))?;
        child.kill().await.map_err(|why| Failure::usage(format!("{name} cannot be killed: {why}")))
    }

    /// Asks the process of a node to stop, and waits for its end.
    ///
    /// # Errors
    /// It does not run, or does not stop in time.
    pub(crate) async fn stop(&mut self, node: LocalNode) -> Result<(), Failure> {
        let name = node.name();
        let at = self.running.iter().position(|(running, _)| *running == name);
        let (_, mut child) =
            at.map(|at| self.running.remove(at)).ok_or_else(|| Failure::usage(format!("{name} does not run")))?;
        if let Some(id) = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)) {
            // Fails if the process has just ended.
            let _ = kill_process(id, Signal::TERM);
        }
        let ended = tokio::time::timeout(TIMEOUT, child.wait()).await;
        ended.map(drop).map_err(|_| Failure::usage(format!("{name} does not stop")))
    }

    /// Removes the data directory of a node that was killed.
    ///
    /// # Errors
    /// It cannot be removed.
    pub(crate) fn wipe(&self, node: LocalNode) -> Result<(), Failure> {
        let data = self.cluster.dir().join(node.name()).join("data");
        std::fs::remove_dir_all(&data).map_err(|why| Failure::file(&data, "removed", &why))
    }

    /// Waits until a process ends by itself.
    pub(crate) async fn one_has_ended(&mut self) -> Failure {
        loop {
            let ended = self.running.iter_mut().find_map(|(name, child)| Some((name, child.try_wait().ok()??)));
            if let Some((name, status)) = ended {
                return Failure::usage(format!("{name} has ended by itself ({status}); the end of its log is above"));
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    fn log(&self, node: LocalNode) -> PathBuf {
        self.cluster.dir().join(node.name()).join("log")
    }

    /// The last lines of the logs.
    pub(crate) fn log_tails(&self) -> Vec<String> {
        let mut words = Vec::new();
        for node in self.cluster.nodes() {
            let text = files::read_text(&self.log(*node)).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            words.extend(
                lines[lines.len().saturating_sub(LAST_LINES)..].iter().map(|line| format!("{}: {line}", node.name())),
            );
        }
        words
    }

    /// Asks every process to stop, and kills those that do not. `Child::id` is `None` once a process was reaped, so no
    /// other process is signalled.
    pub(crate) async fn end(&mut self) {
        let ids = self
            .running
            .iter()
            .filter_map(|(_, child)| child.id())
            .filter_map(|id| Pid::from_raw(i32::try_from(id).ok()?));
        for id in ids {
            // Fails if the process has just ended.
            let _ = kill_process(id, Signal::TERM);
        }
        let deadline = tokio::time::Instant::now() + TIMEOUT;
        for (_, child) in &mut self.running {
            if tokio::time::timeout_at(deadline, child.wait()).await.is_err() {
                let _ = child.kill().await;
            }
        }
        self.running.clear();
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        // Killed first, so that no process writes into the directory while it is removed.
        for (_, child) in &mut self.running {
            let _ = child.start_kill();
        }
        let _ = std::fs::remove_dir_all(self.cluster.dir());
    }
}

fn new_cluster(purpose: &str, nodes: u8) -> Result<LocalCluster, Failure> {
    let dir = std::env::temp_dir().join(format!("rejoin-{purpose}-{:016x}", rand::random::<u64>()));
    // More shards than threads would not run in parallel, and would share fewer writes with each sync.
    let shards = 1 << threads_each(usize::from(nodes)).ilog2().min(8);
    Ok(LocalCluster::new(dir, free_nodes(nodes)?).with_shards(shards))
}

/// The threads of each node, so that all nodes together have about one for each processor.
fn threads_each(nodes: usize) -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    (processors / nodes.max(1)).clamp(1, 1024)
}

/// Nodes on free ports. All ports are held until all are chosen.
fn free_nodes(count: u8) -> Result<Vec<LocalNode>, Failure> {
    let none = |why: std::io::Error| Failure::usage(format!("no free port on 127.0.0.1: {why}"));
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut held = Vec::new();
    let mut nodes = Vec::new();
    for number in 1..=count {
        let (udp, tcp) = (UdpSocket::bind(any).map_err(none)?, TcpListener::bind(any).map_err(none)?);
        let (address, admin) = (udp.local_addr().map_err(none)?, tcp.local_addr().map_err(none)?);
        nodes.push(LocalNode { number, address, admin });
        held.push((udp, tcp));
    }
    Ok(nodes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_are_on_different_free_ports() {
        let nodes = free_nodes(3).unwrap();
        let mut ports: Vec<u16> = nodes.iter().map(|node| node.address.port()).collect();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 3);
        assert!(nodes.iter().all(|node| UdpSocket::bind(node.address).is_ok()));
    }

    #[test]
    fn what_was_prepared_is_removed_again() {
        let processes = Processes::prepare_with_faults("test", 3).unwrap();
        let dir = processes.cluster.dir().to_path_buf();
        assert!(dir.join("n3/node.toml").is_file());
        assert!(files::read_text(&dir.join("n1/node.toml")).unwrap().contains("dev_faults = true"));
        drop(processes);
        assert!(!dir.exists());
    }
}
