//! The faults of a storm, drawn from its seed. The plan depends on nothing but the seed and the length: what a machine
//! cannot do is left out when it is due, and counted.

use std::fmt;

use rejoin_test_sim::rng::{Rng, Stream};

use crate::NODES;

/// The mean time between the beginnings of two faults.
const EVERY_MS: u64 = 1_800;
/// Nodes that may be stopped, killed or without room at the same time. Of three owners one is left.
pub const TROUBLED: usize = 2;
/// The farthest that a wall clock is set off: half the difference that the nodes allow, because retries are promised
/// only within that.
const SKEW_MS: u64 = 30_000;
/// In each minute so much has no faults: there changes of the layout are alone.
const QUIET_MS: u64 = 10_000;
const MINUTE_MS: u64 = 60_000;
/// The time at the end in which no fault begins.
const LAST_MS: u64 = 2_000;

/// A place in the network: a node by its number, or the clients.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Place {
    /// A node.
    Node(u8),
    /// The process in which the clients are.
    Clients,
}

/// One fault.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fault {
    /// SIGKILL, and a start when the fault ends.
    Kill(u8),
    /// SIGSTOP, and SIGCONT when it ends.
    Pause(u8),
    /// These packets are dropped: from, to.
    Cut(Vec<(Place, Place)>),
    /// The node is killed, its data directory emptied, and the node started.
    Wipe(u8),
    /// No byte is left on the node's disk. If `true`, the node is killed and started meanwhile.
    FullDisk(u8, bool),
    /// The node's wall clock is so many milliseconds off until the next such fault.
    Clock(u8, i64),
}

/// A fault with its time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// When it begins, since the beginning of the storm.
    pub at_ms: u64,
    /// How long it lasts.
    pub for_ms: u64,
    /// The fault.
    pub fault: Fault,
}

impl Fault {
    /// The name of its kind.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Kill(_) => "kills",
            Self::Pause(_) => "pauses",
            Self::Cut(links) if is_one_way(links) => "one-way cuts",
            Self::Cut(_) => "two-way cuts",
            Self::Wipe(_) => "wipes",
            Self::FullDisk(..) => "full disks",
            Self::Clock(..) => "clock jumps",
        }
    }

    /// The node that cannot serve while it lasts.
    #[must_use]
    pub fn troubles(&self) -> Option<u8> {
        match *self {
            Self::Kill(node) | Self::Pause(node) | Self::Wipe(node) | Self::FullDisk(node, _) => Some(node),
            Self::Cut(_) | Self::Clock(..) => None,
        }
    }
}

/// Whether some packet is dropped whose answer is not.
#[must_use]
pub fn is_one_way(links: &[(Place, Place)]) -> bool {
    links.iter().any(|&(from, to)| !links.contains(&(to, from)))
}

/// Draws the faults of a storm of that length.
#[must_use]
pub fn draw(seed: u64, length_ms: u64) -> Vec<Step> {
    let mut rng = Rng::new(seed, Stream::Faults);
    let mut steps: Vec<Step> = Vec::new();
    let mut at_ms = 1_000;
    loop {
        at_ms += 100 + rng.exponential(EVERY_MS);
        if at_ms + LAST_MS >= length_ms {
            return steps;
        }
        let busy: Vec<u8> = steps
            .iter()
            .filter(|step| step.at_ms + step.for_ms >= at_ms)
            .filter_map(|step| step.fault.troubles())
            .collect();
        let node = rng.below(NODES.into()) as u8;
        let fault = one(&mut rng, node);
        let for_ms = if matches!(fault, Fault::Clock(..)) { 0 } else { a_while(&mut rng) };
        let is_quiet = at_ms % MINUTE_MS < QUIET_MS;
        let too_many = fault.troubles().is_some_and(|node| busy.len() >= TROUBLED || busy.contains(&node));
        if !too_many && !is_quiet {
            steps.push(Step { at_ms, for_ms, fault });
        }
    }
}

/// Mostly short, sometimes longer than it takes to give a peer up.
fn a_while(rng: &mut Rng) -> u64 {
    let mean = *rng.pick(&[300, 1_500, 4_000]);
    200 + rng.exponential(mean).min(15_000)
}

fn one(rng: &mut Rng, node: u8) -> Fault {
    match rng.below(100) {
        0..26 => Fault::Kill(node),
        26..44 => Fault::Pause(node),
        44..58 => Fault::Cut(sides(rng)),
        58..72 => Fault::Cut(deaf(rng, node)),
        72..80 => Fault::Cut(clients_cut(rng, node)),
        80..86 => Fault::Wipe(node),
        86..94 => Fault::FullDisk(node, rng.percent(40)),
        _ => Fault::Clock(node, rng.between(0, 2 * SKEW_MS) as i64 - SKEW_MS as i64),
    }
}

/// The nodes fall into two sides, neither of them empty. Clients reach both.
fn sides(rng: &mut Rng) -> Vec<(Place, Place)> {
    let mask = rng.between(1, (1 << NODES) - 2);
    let side = |node: u8| mask >> node & 1;
    let pairs = (0..NODES).flat_map(|from| (0..NODES).map(move |to| (from, to)));
    pairs.filter(|&(from, to)| side(from) != side(to)).map(|(from, to)| (Place::Node(from), Place::Node(to))).collect()
}

/// Some of the others do not hear a node any more.
fn deaf(rng: &mut Rng, node: u8) -> Vec<(Place, Place)> {
    let mut to: Vec<u8> = (0..NODES).filter(|&other| other != node && rng.percent(60)).collect();
    if to.is_empty() {
        to.push((node + 1) % NODES);
    }
    to.into_iter().map(|to| (Place::Node(node), Place::Node(to))).collect()
}

/// The clients' requests do not reach a node, or its answers do not reach them, or both.
fn clients_cut(rng: &mut Rng, node: u8) -> Vec<(Place, Place)> {
    let (there, back) = ((Place::Clients, Place::Node(node)), (Place::Node(node), Place::Clients));
    match rng.below(3) {
        0 => vec![there],
        1 => vec![back],
        _ => vec![there, back],
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(node) => write!(f, "n{}", node + 1),
            Self::Clients => f.write_str("clients"),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |ms: u64| ms as f64 / 1e3;
        write!(f, "{:7.1} s  ", seconds(self.at_ms))?;
        let node = |node: u8| Place::Node(node);
        match &self.fault {
            Fault::Kill(of) => write!(f, "{} is killed", node(*of)),
            Fault::Pause(of) => write!(f, "{} is stopped", node(*of)),
            Fault::Cut(links) => {
                f.write_str("cut:")?;
                let shown = |(from, to): &(Place, Place)| match links.contains(&(*to, *from)) {
                    true => (from < to).then(|| format!(" {from}--{to}")),
                    false => Some(format!(" {from}->{to}")),
                };
                links.iter().filter_map(shown).try_for_each(|link| f.write_str(&link))
            }
            Fault::Wipe(of) => write!(f, "the disk of {} is wiped", node(*of)),
            Fault::FullDisk(of, killed) => {
                write!(f, "the disk of {} is full{}", node(*of), if *killed { ", and it is killed" } else { "" })
            }
            Fault::Clock(of, skew_ms) => return write!(f, "the clock of {} is {skew_ms} ms off", node(*of)),
        }?;
        write!(f, ", for {:.1} s", seconds(self.for_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH_MS: u64 = 30 * 60_000;

    #[test]
    fn the_same_seed_draws_the_same_plan_and_another_one_another() {
        assert_eq!(draw(7, LENGTH_MS), draw(7, LENGTH_MS));
        assert_ne!(draw(7, LENGTH_MS), draw(8, LENGTH_MS));
        let (long, short) = (draw(7, LENGTH_MS), draw(7, LENGTH_MS / 2));
        assert!(long.starts_with(&short), "a longer storm begins as a shorter one");
    }

    #[test]
    fn every_kind_is_drawn_and_at_most_two_nodes_are_troubled_at_once() {
        let plan = draw(3, LENGTH_MS);
        let kinds = ["kills", "pauses", "one-way cuts", "two-way cuts", "wipes", "full disks", "clock jumps"];
        for kind in kinds {
            assert!(plan.iter().any(|step| step.fault.kind() == kind), "{kind}");
        }
        for step in &plan {
            let lasts = |other: &&Step| other.at_ms <= step.at_ms && step.at_ms <= other.at_ms + other.for_ms;
            let troubled = plan.iter().filter(lasts).filter_map(|other| other.fault.troubles());
            assert!(troubled.collect::<Vec<_>>().len() <= TROUBLED, "{step}");
        }
    }

    #[test]
    fn two_minutes_of_the_default_seed_have_faults_of_most_kinds() {
        let plan = draw(1, 120_000);
        let kinds: std::collections::BTreeSet<_> = plan.iter().map(|step| step.fault.kind()).collect();
        assert!(plan.len() > 25 && kinds.len() >= 6, "{} faults: {kinds:?}", plan.len());
    }

    #[test]
    fn cuts_are_shown_by_their_direction() {
        let (a, b, clients) = (Place::Node(0), Place::Node(1), Place::Clients);
        let shown = |links| Step { at_ms: 1_000, for_ms: 500, fault: Fault::Cut(links) }.to_string();
        assert_eq!(shown(vec![(a, b), (b, a)]).trim(), "1.0 s  cut: n1--n2, for 0.5 s");
        assert_eq!(shown(vec![(a, clients)]).trim(), "1.0 s  cut: n1->clients, for 0.5 s");
    }
}
