//! A private cluster of `rejoin serve` processes for `demo` and `bench`. They end with whoever started them, however
//! that ends.

use std::fs::File;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use crate::cluster::{Cluster, Seat};
use crate::failure::Failure;
use crate::files;

/// How long a process may take to stop before it is killed.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked whether they still run.
const GLANCE: Duration = Duration::from_millis(50);
/// Lines of each log that are shown when something fails.
const LAST_LINES: usize = 12;

/// The cluster's files and processes. Dropped, both go.
pub(crate) struct Processes {
    pub(crate) cluster: Cluster,
    running: Vec<(String, Child)>,
}

impl Processes {
    /// Makes the files of a cluster of that many nodes on free ports, in a new directory for temporary files.
    ///
    /// # Errors
    /// They cannot be written, or no port is free.
    pub(crate) fn prepare(purpose: &str, nodes: u8) -> Result<Self, Failure> {
        Self::write(new_cluster(purpose, nodes)?)
    }

    /// As [`Processes::prepare`], of nodes whose admin ports take faults to order.
    ///
    /// # Errors
    /// As [`Processes::prepare`].
    pub(crate) fn prepare_with_faults(purpose: &str, nodes: u8) -> Result<Self, Failure> {
        Self::write(new_cluster(purpose, nodes)?.with_faults())
    }

    fn write(cluster: Cluster) -> Result<Self, Failure> {
        // Owned from here on, so that a half-written directory goes too.
        let this = Self { cluster, running: Vec::new() };
        this.cluster.write()?;
        Ok(this)
    }

    /// Starts them all, and gives the process ids.
    ///
    /// # Errors
    /// A process cannot be started.
    pub(crate) fn start(&mut self) -> Result<Vec<u32>, Failure> {
        let rejoin = std::env::current_exe().map_err(|why| Failure::usage(format!("this program cannot find itself: {why}")))?;
        let mut ids = Vec::new();
        let threads = threads_each(self.cluster.seats().len()).to_string();
        for seat in self.cluster.seats() {
            let log = self.log(*seat);
            let file = File::create(&log).map_err(|why| Failure::file(&log, "written", &why))?;
            let copy = file.try_clone().map_err(|why| Failure::file(&log, "written", &why))?;
            let mut command = Command::new(&rejoin);
            command.args(["serve", "--with-parent", "--threads", &threads, "--color", "never", "--config"]).arg(self.cluster.config(*seat));
            command.stdin(Stdio::null()).stdout(file).stderr(copy).kill_on_drop(true);
            // Ctrl-C is for who has started them, who then ends them.
            command.process_group(0);
            let child = command.spawn().map_err(|why| Failure::file(&rejoin, "started", &why))?;
            ids.extend(child.id());
            self.running.push((seat.name(), child));
        }
        Ok(ids)
    }

    /// Resolves when a process has ended by itself.
    pub(crate) async fn one_has_ended(&mut self) -> Failure {
        loop {
            let ended = self.running.iter_mut().find_map(|(name, child)| Some((name, child.try_wait().ok()??)));
            if let Some((name, status)) = ended {
                return Failure::usage(format!("{name} has ended by itself ({status}); what it said is above"));
            }
            tokio::time::sleep(GLANCE).await;
        }
    }

    fn log(&self, seat: Seat) -> PathBuf {
        self.cluster.dir().join(seat.name()).join("log")
    }

    /// The ends of the logs.
    pub(crate) fn last_words(&self) -> Vec<String> {
        let mut words = Vec::new();
        for seat in self.cluster.seats() {
            let text = files::read_text(&self.log(*seat)).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            words.extend(lines[lines.len().saturating_sub(LAST_LINES)..].iter().map(|line| format!("{}: {line}", seat.name())));
        }
        words
    }

    /// Asks every process to stop, and kills those that do not. They are addressed by their ids, and only while they
    /// are ours.
    pub(crate) async fn end(&mut self) {
        let ids = self.running.iter().filter_map(|(_, child)| child.id()).filter_map(|id| Pid::from_raw(i32::try_from(id).ok()?));
        for id in ids {
            // One that has just ended cannot be told, and need not be.
            let _ = kill_process(id, Signal::TERM);
        }
        let deadline = tokio::time::Instant::now() + PATIENCE;
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
        // What still runs is killed first, so that nothing writes into what is being removed.
        for (_, child) in &mut self.running {
            let _ = child.start_kill();
        }
        let _ = std::fs::remove_dir_all(self.cluster.dir());
    }
}

fn new_cluster(purpose: &str, nodes: u8) -> Result<Cluster, Failure> {
    let dir = std::env::temp_dir().join(format!("rejoin-{purpose}-{:016x}", rand::random::<u64>()));
    // No thread of a node works on two shards at once, and a shard's sync serves all that is written to it meanwhile.
    let shards = 1 << threads_each(usize::from(nodes)).ilog2().min(8);
    Ok(Cluster::new(dir, free_seats(nodes)?).with_shards(shards))
}

/// The threads of each of so many nodes, which share this machine: more of them than processors would only take turns.
fn threads_each(nodes: usize) -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    (processors / nodes.max(1)).clamp(1, 1024)
}

/// Addresses that nobody uses: all are held until all are chosen.
fn free_seats(count: u8) -> Result<Vec<Seat>, Failure> {
    let none = |why: std::io::Error| Failure::usage(format!("no free port on 127.0.0.1: {why}"));
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut held = Vec::new();
    let mut seats = Vec::new();
    for number in 1..=count {
        let (udp, tcp) = (UdpSocket::bind(any).map_err(none)?, TcpListener::bind(any).map_err(none)?);
        let (address, admin) = (udp.local_addr().map_err(none)?, tcp.local_addr().map_err(none)?);
        seats.push(Seat { number, address, admin });
        held.push((udp, tcp));
    }
    Ok(seats)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_are_on_different_free_ports() {
        let seats = free_seats(3).unwrap();
        let mut ports: Vec<u16> = seats.iter().map(|seat| seat.address.port()).collect();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 3);
        assert!(seats.iter().all(|seat| UdpSocket::bind(seat.address).is_ok()));
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
