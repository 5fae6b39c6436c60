//! The nodes' processes, and faults on them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use rejoin_client::admin::{LayoutStatus, Name, Status};
use rejoin_client::{Client, Profile};
use rejoin_test_cluster::{Files, Process, cluster_id, http};

use crate::clients::TIMEOUT;
use crate::ground::Ground;
use crate::plan::{Fault, Place};
use crate::ring::{self, Parts};
use crate::{MEMBERS, NODES};

/// Lines that are the same in every configuration. Small buffers, so that tables are written.
const MORE: &str = "shards = 2\nmemtable_bytes = 4194304\ncache_bytes = 4194304\nfree_space_floor = 16777216";

/// How long a client may take for its first connection, on a busy machine.
const CONNECT: Duration = Duration::from_secs(10);

/// Where a node's process is.
#[derive(Debug)]
enum State {
    Running(Process),
    /// It was stopped with SIGSTOP.
    Paused(Process),
    Down,
}

/// All nodes.
#[derive(Debug)]
pub struct Nodes {
    /// Where they live.
    pub ground: Ground,
    /// Their files.
    pub files: Files,
    states: Vec<State>,
    /// How many faults drop the packets of a link.
    cuts: BTreeMap<(Place, Place), u32>,
    /// Processes that have ended without being killed, and faults that could not be done.
    pub problems: Vec<String>,
}

impl Nodes {
    /// Writes the files and starts all nodes.
    #[must_use]
    pub fn start(ground: Ground) -> Self {
        let seats = (0..MEMBERS).map(|node| ground.seat(node)).collect();
        let mut files = Files::create_at(&ground.dir, cluster_id(0), seats, MORE);
        for node in MEMBERS..NODES {
            files.add_at(ground.seat(node));
        }
        let states = (0..NODES).map(|_| State::Down).collect();
        let mut nodes = Self { ground, files, states, cuts: BTreeMap::new(), problems: Vec::new() };
        (0..NODES).for_each(|node| nodes.spawn(node));
        nodes
    }

    fn spawn(&mut self, node: u8) {
        let config = self.files.config_path(usize::from(node));
        self.states[usize::from(node)] = State::Running(Process::serve_by(self.ground.command(node), &config));
    }

    /// Kills a node with SIGKILL, if it runs.
    pub fn kill(&mut self, node: u8) {
        self.look_after(node);
        match std::mem::replace(&mut self.states[usize::from(node)], State::Down) {
            // A process that is stopped dies of SIGKILL too.
            State::Running(process) | State::Paused(process) => process.kill(),
            State::Down => {}
        }
    }

    /// Starts a node that is down.
    pub fn revive(&mut self, node: u8) {
        if matches!(self.states[usize::from(node)], State::Down) {
            self.spawn(node);
        }
    }

    /// Notes which processes have ended by themselves, and starts them again.
    pub fn look(&mut self) {
        (0..NODES).for_each(|node| self.look_after(node));
    }

    fn look_after(&mut self, node: u8) {
        let state = &mut self.states[usize::from(node)];
        let State::Running(process) = state else { return };
        if process.runs() {
            return;
        }
        let log = process.log();
        let last: Vec<&str> = log.lines().rev().take(3).collect();
        self.problems.push(format!("{} has ended by itself, after saying {last:?}", Place::Node(node)));
        *state = State::Down;
        self.spawn(node);
    }

    /// Begins a fault that the ground can do. A wipe is more than that.
    pub fn begin(&mut self, fault: &Fault) {
        let done = match fault {
            Fault::Kill(node) => {
                self.kill(*node);
                Ok(())
            }
            Fault::Pause(node) => {
                self.pause(*node);
                Ok(())
            }
            Fault::Cut(links) => links.iter().try_for_each(|link| self.cut(*link)),
            Fault::FullDisk(node, killed) => {
                let filled = self.ground.fill(*node);
                if *killed {
                    self.kill(*node);
                    self.spawn(*node);
                }
                filled
            }
            Fault::Clock(node, skew_ms) => self.ground.set_clock(*node, *skew_ms),
            Fault::Wipe(_) => Ok(()),
        };
        self.problems.extend(done.err());
    }

    /// Ends it.
    pub fn end(&mut self, fault: &Fault) {
        let done = match fault {
            Fault::Kill(node) | Fault::Wipe(node) => {
                self.revive(*node);
                Ok(())
            }
            Fault::Pause(node) => {
                self.resume(*node);
                Ok(())
            }
            Fault::Cut(links) => links.iter().try_for_each(|link| self.mend(*link)),
            Fault::FullDisk(node, _) => {
                self.ground.free(*node);
                Ok(())
            }
            // Clocks are set right in the end.
            Fault::Clock(..) => Ok(()),
        };
        self.problems.extend(done.err());
    }

    /// Sets all clocks right.
    pub fn set_clocks(&mut self) {
        let set: Vec<String> = (0..NODES).filter_map(|node| self.ground.set_clock(node, 0).err()).collect();
        self.problems.extend(set);
    }

    fn pause(&mut self, node: u8) {
        self.look_after(node);
        let state = &mut self.states[usize::from(node)];
        *state = match std::mem::replace(state, State::Down) {
            State::Running(process) => {
                process.pause(true);
                State::Paused(process)
            }
            other => other,
        };
    }

    fn resume(&mut self, node: u8) {
        let state = &mut self.states[usize::from(node)];
        *state = match std::mem::replace(state, State::Down) {
            State::Paused(process) => {
                process.pause(false);
                State::Running(process)
            }
            other => other,
        };
    }

    fn cut(&mut self, (from, to): (Place, Place)) -> Result<(), String> {
        let faults = self.cuts.entry((from, to)).or_default();
        *faults += 1;
        match *faults {
            1 if self.ground.nodes_cut() => self.cut_by_nodes(from, to),
            1 => self.ground.drop_packets(from, to, true),
            _ => Ok(()),
        }
    }

    fn mend(&mut self, (from, to): (Place, Place)) -> Result<(), String> {
        let faults = self.cuts.entry((from, to)).or_default();
        *faults = faults.saturating_sub(1);
        if *faults > 0 {
            return Ok(());
        }
        self.cuts.remove(&(from, to));
        if self.ground.nodes_cut() { self.heal_by_nodes(from) } else { self.ground.drop_packets(from, to, false) }
    }

    /// A node that runs cuts its connections to another one by itself.
    fn cut_by_nodes(&self, from: Place, to: Place) -> Result<(), String> {
        self.ask(from, &format!("/faults/cut/{to}"))
    }

    /// It heals all of them at once, so those that are still to be cut are cut again.
    fn heal_by_nodes(&self, from: Place) -> Result<(), String> {
        self.ask(from, "/faults/heal")?;
        let left = self.cuts.keys().filter(|(of, _)| *of == from);
        left.clone().try_for_each(|(of, to)| self.cut_by_nodes(*of, *to))
    }

    /// Posts to a node's admin port, if it can answer now. One that cannot is down or stopped, and cuts nothing.
    fn ask(&self, place: Place, path: &str) -> Result<(), String> {
        let Place::Node(node) = place else { return Ok(()) };
        let node = usize::from(node);
        if !matches!(self.states[node], State::Running(_)) {
            return Ok(());
        }
        // One that is just starting has no admin port yet.
        http::send(self.files.nodes[node].2, path).map_or(Ok(()), |status| match status {
            200 => Ok(()),
            other => Err(format!("{place} answers {other} to {path}")),
        })
    }

    /// What a client that asks only one node is made with.
    ///
    /// # Errors
    /// The profile cannot be read.
    pub fn pinned(&self, node: u8) -> Result<rejoin_client::ClientBuilder, String> {
        let profile = Profile::load(self.files.profile()).map_err(|error| error.to_string())?;
        let address = self.files.nodes[usize::from(node)].1;
        Ok(profile.builder().seeds([address.to_string()]).pinned().connect_timeout(CONNECT).timeout(TIMEOUT))
    }

    /// A client that goes to the owners.
    ///
    /// # Errors
    /// No node lets it in.
    pub async fn client(&self) -> Result<Client, String> {
        let profile = Profile::load(self.files.profile()).map_err(|error| error.to_string())?;
        profile.builder().connect_timeout(CONNECT).timeout(TIMEOUT).connect().await.map_err(|error| error.to_string())
    }

    /// Whether a node sees all others, members or not, but for those that are dead for good, and has what it needs.
    #[must_use]
    pub fn is_together(status: &Status, layout: &LayoutStatus, parts: &Parts) -> bool {
        let sees = |other: Name| layout.nodes.iter().any(|node| node.up && node.name == other);
        parts.alive().map(ring::name_of).all(sees) && status.missing_plugins.is_empty()
    }

    /// Where clients reach the nodes.
    #[must_use]
    pub fn addresses(&self, of: impl Iterator<Item = u8>) -> Vec<SocketAddr> {
        of.map(|node| self.files.nodes[usize::from(node)].1).collect()
    }
}
