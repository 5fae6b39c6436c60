//! An operator's commands: what is staged, the layout that comes of it, and its application.

use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;

use rejoin_proto::layout::{LayoutNode, MAX_OWNERS};
use rejoin_proto::ring::{ChangedBucket, MAX_LIVE, PastLayout, Role, Staged};
use rejoin_proto::{
    BucketCopies, BucketId, ErrorCode, ErrorReply, Layout, LayoutPolicy, LayoutRef, Name, NodeId, Ring,
};

use super::{Awaited, RingCommand, RingControl};
use crate::placement::change::compare;
use crate::placement::solver::{Demand, Infeasible, Solution, solve, uneven};

/// The largest capacity of a node. Shares are products of capacities and partitions.
pub const MAX_CAPACITY: u32 = 1_000_000;

/// The most partitions that a split may come to. Every node compares each of its partitions with each other owner, and
/// tells its peers of each that it holds for others.
pub const MOST_PARTITIONS: u32 = 4096;

/// What an operator stages.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Staging {
    /// New roles of nodes.
    pub roles: Vec<(Name, Role)>,
    /// Another policy.
    pub policy: Option<LayoutPolicy>,
    /// Twice as many partitions. Nothing else may be staged with it.
    pub split: bool,
}

/// Other copies of a bucket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CopiesChange {
    /// The bucket.
    pub bucket: BucketId,
    /// Its name, for messages and the history.
    pub name: Name,
    /// The changes so far that the operator has seen ([`BucketCopies::change`]); 0 if there were none.
    pub seen: u32,
    /// Copies of each object from now on.
    pub n: u8,
    /// Whether other nodes stand in for owners from now on.
    pub sloppy: bool,
}

/// Why there is no plan.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanRefused {
    /// Nothing is staged.
    #[error("nothing is staged: stage a change with `rejoin layout assign NODE`, `remove NODE` or `split`")]
    NothingStaged,
    /// A split is staged with something else, at two nodes.
    #[error(
        "a split is a change by itself, and another operator has staged other changes: take all back with `rejoin \
            layout revert`, stage the split alone, and the others when it has ended"
    )]
    SplitWithOthers,
    /// The demands cannot be met.
    #[error(transparent)]
    Infeasible(#[from] Infeasible),
}

/// The layout that comes of what is staged. The same ring gives the same plan on every node.
///
/// # Errors
/// [`PlanRefused`] says why there is none, and what to do.
pub fn plan(ring: &Ring) -> Result<Solution, PlanRefused> {
    let (newest, policy) = (ring.newest().divided(ring.partitions()), super::policy(ring));
    let staged: Vec<(NodeId, &Role)> = ring.staged().collect();
    let is_other = !staged.is_empty() || policy != newest.policy;
    match (ring.staged_split(), is_other) {
        (Some(_), true) => return Err(PlanRefused::SplitWithOthers),
        (Some(partitions), false) => return Ok(split(newest, partitions)),
        (None, false) => return Err(PlanRefused::NothingStaged),
        (None, true) => {}
    }
    let role = |id: NodeId| staged.iter().find(|(node, _)| *node == id).map(|(_, role)| *role);
    let mut nodes: Vec<LayoutNode> =
        newest.nodes.iter().filter_map(|node| with_role(ring, node, role(node.id))).collect();
    for (id, role) in staged.iter().filter(|(id, _)| newest.node(*id).is_none()) {
        if let (Role::Member { zone, capacity }, Some(known)) = (role, ring.notes.announced.get(id)) {
            let (name, address) = (known.name.clone(), known.address.clone());
            nodes.push(LayoutNode { id: *id, name, zone: zone.clone(), capacity: *capacity, address });
        }
    }
    Ok(solve(Demand { nodes, partitions: newest.partitions(), before: Some(&newest), policy })?)
}

/// The layout after a split: the halves of each partition have its owners.
fn split(before: Layout, partitions: u32) -> Solution {
    let mut layout = before.divided(partitions);
    layout.version += 1;
    let uneven = uneven(&layout, layout.policy.n);
    Solution { layout, uneven }
}

/// A member of the newest layout as it is to be, with the address that it has announced.
fn with_role(ring: &Ring, node: &LayoutNode, role: Option<&Role>) -> Option<LayoutNode> {
    let mut node = node.clone();
    if let Some(announced) = ring.notes.announced.get(&node.id) {
        node.address = announced.address.clone();
    }
    match role {
        Some(Role::Removed) => return None,
        Some(Role::Member { zone, capacity }) => (node.zone, node.capacity) = (zone.clone(), *capacity),
        None => {}
    }
    Some(node)
}

impl RingControl {
    /// Carries a command out in memory. The ring is unchanged if it is refused.
    pub(super) fn command(&mut self, wall_ms: u64, command: RingCommand) -> Result<(), ErrorReply> {
        match command {
            RingCommand::Stage(staging) => self.stage(staging),
            RingCommand::Revert => self.revert(),
            RingCommand::Apply(name) => self.apply(wall_ms, name),
            RingCommand::Skip(name) => self.skip(&name),
            RingCommand::SetCopies(change) => self.set_copies(wall_ms, change),
        }
    }

    fn stage(&mut self, staging: Staging) -> Result<(), ErrorReply> {
        self.may_stage(&staging)?;
        let mut roles = Vec::with_capacity(staging.roles.len());
        for (name, role) in staging.roles {
            let id = NodeId::from_name(&name);
            let is_member = self.ring.newest().node(id).is_some();
            match &role {
                Role::Removed if !is_member => {
                    return Err(bad(format!(
                        "node {name} is not in the layout: `rejoin layout show` lists its members"
                    )));
                }
                Role::Member { .. } if !is_member && !self.ring.notes.announced.contains_key(&id) => {
                    let why = format!(
                        "no node {name} is known: start it with `join = [...]` in its configuration, then assign it"
                    );
                    return Err(bad(why));
                }
                Role::Member { capacity, .. } if *capacity > MAX_CAPACITY => {
                    return Err(bad(format!("the capacity of node {name} is {capacity}; the most is {MAX_CAPACITY}")));
                }
                _ => roles.push((id, role)),
            }
        }
        if staging.split {
            let partitions = self.may_split()?;
            self.set_split(Some(partitions));
        }
        roles.into_iter().for_each(|(id, role)| self.set_staged(id, Some(role)));
        if let Some(policy) = staging.policy {
            self.set_policy(Some(policy));
        }
        Ok(())
    }

    /// Refuses a split beside other changes at once, and not only their plan, which two operators at two nodes can
    /// still come to.
    fn may_stage(&self, staging: &Staging) -> Result<(), ErrorReply> {
        let changes = |policy: LayoutPolicy| policy != self.ring.newest().policy;
        let is_other = !staging.roles.is_empty() || staging.policy.is_some_and(changes);
        let has_other = self.ring.staged().next().is_some() || self.ring.staged_policy().is_some_and(changes);
        let alone = "a split is a change by itself";
        if staging.split && is_other {
            return Err(bad(format!("{alone}: stage it without other changes, and these when it has ended")));
        }
        if staging.split && has_other {
            return Err(bad(format!(
                "{alone}, and other changes are staged: apply them first, or take them back with `rejoin layout \
                    revert`; then stage the split"
            )));
        }
        if is_other && self.ring.staged_split().is_some() {
            let why = "a split is staged, which is a change by itself: apply it first, or take it back with `rejoin \
                layout revert`; then stage this";
            return Err(bad(why.to_string()));
        }
        Ok(())
    }

    /// The partitions after a split, if one is possible now.
    fn may_split(&self) -> Result<u32, ErrorReply> {
        let now = self.ring.partitions();
        // Rule: splits come alone. What moves is told apart by the partitions of before.
        if self.ring.live.len() > 1 || Awaited::of(&self.ring).step.is_some() {
            let why = "a change of layout is under way: split the partitions when it has ended; `rejoin layout show` \
                says what it waits for";
            return Err(ErrorReply::new(ErrorCode::Overloaded, why));
        }
        if now >= MOST_PARTITIONS {
            return Err(bad(format!(
                "the ring has {now} partitions, and a split may come to {MOST_PARTITIONS} at most"
            )));
        }
        Ok(now * 2)
    }

    fn revert(&mut self) -> Result<(), ErrorReply> {
        let staged: Vec<NodeId> = self.ring.staged().map(|(node, _)| node).collect();
        let is_split = self.ring.staged_split().is_some();
        if staged.is_empty() && self.ring.staged_policy().is_none() && !is_split {
            return Err(bad(PlanRefused::NothingStaged.to_string()));
        }
        staged.into_iter().for_each(|node| self.set_staged(node, None));
        self.set_policy(None);
        if is_split {
            self.set_split(None);
        }
        Ok(())
    }

    fn set_staged(&mut self, node: NodeId, what: Option<Role>) {
        let base = self.ring.newest().name();
        let known = self.ring.notes.staged.get(&node);
        let number = number_after(known.map(|known| (known.base, known.number)), base);
        self.ring.notes.staged.insert(node, Staged { base, number, what });
    }

    fn set_policy(&mut self, what: Option<LayoutPolicy>) {
        let base = self.ring.newest().name();
        let known = self.ring.notes.policy.as_ref();
        let number = number_after(known.map(|known| (known.base, known.number)), base);
        self.ring.notes.policy = Some(Staged { base, number, what });
    }

    fn set_split(&mut self, what: Option<u32>) {
        let base = self.ring.newest().name();
        let known = self.ring.notes.split.as_ref();
        let number = number_after(known.map(|known| (known.base, known.number)), base);
        self.ring.notes.split = Some(Staged { base, number, what });
    }

    /// Another layout may become live.
    fn has_room(&self) -> Result<(), ErrorReply> {
        if self.ring.live.len() < MAX_LIVE {
            return Ok(());
        }
        let why = format!(
            "{MAX_LIVE} layouts are live, and no more may be: wait until a change has ended; `rejoin layout show` says \
                what it waits for"
        );
        Err(ErrorReply::new(ErrorCode::Overloaded, why))
    }

    fn apply(&mut self, wall_ms: u64, name: LayoutRef) -> Result<(), ErrorReply> {
        self.has_room()?;
        let solution = self.plan().map_err(|refused| bad(refused.to_string()))?;
        if self.ring.staged_split().is_some() {
            self.may_split()?;
        }
        let planned = solution.layout.name();
        // Rule: only shown plans are applied.
        if planned != name {
            let why = format!(
                "the plan is not what was shown any more: it is version {} with hash {:016x} now. Look at it with \
                    `rejoin layout plan`, then apply that",
                planned.version, planned.hash
            );
            return Err(ErrorReply::new(ErrorCode::VersionConflict, why));
        }
        let before = self.ring.newest().divided(solution.layout.partitions());
        let moved = compare(&before, &solution.layout, solution.layout.policy.n);
        let past = PastLayout {
            applied_ms: wall_ms,
            by: self.node,
            nodes: u32::try_from(solution.layout.nodes.len()).unwrap_or(u32::MAX),
            moved: moved.map_or(0, |change| change.moved()),
            bucket: None,
            split: self.ring.staged_split(),
        };
        self.ring.notes.past.insert(planned, past);
        self.ring.add(alloc::vec![solution.layout]);
        Ok(())
    }

    /// Makes a layout the newest that differs from the one before in the copies of one bucket. What is staged stays
    /// staged.
    fn set_copies(&mut self, wall_ms: u64, wanted: CopiesChange) -> Result<(), ErrorReply> {
        let CopiesChange { bucket, name, seen, n, sloppy } = wanted;
        if !(1..=MAX_OWNERS).contains(&usize::from(n)) {
            return Err(bad(format!("n must be 1 to {MAX_OWNERS}")));
        }
        let before = self.ring.newest();
        let change = before.copies_of(bucket).map_or(0, |copies| copies.change);
        // Rule: changes of copies are compared first.
        if change != seen {
            let why = format!("bucket {name} was changed meanwhile: look at it again, then set it");
            return Err(ErrorReply::new(ErrorCode::VersionConflict, why));
        }
        self.has_room()?;
        let (base, mut layout) = (before.name(), before.divided(self.ring.partitions()));
        let change = seen.checked_add(1).ok_or_else(|| bad(format!("bucket {name} was changed too often")))?;
        let copies = BucketCopies { bucket, change, n, sloppy };
        match layout.copies.binary_search_by_key(&bucket, |of| of.bucket) {
            Ok(at) => layout.copies[at] = copies,
            Err(at) => layout.copies.insert(at, copies),
        }
        layout.version += 1;
        let nodes = u32::try_from(layout.nodes.len()).unwrap_or(u32::MAX);
        let bucket = Some(ChangedBucket { name, n, sloppy });
        let past = PastLayout { applied_ms: wall_ms, by: self.node, nodes, moved: 0, bucket, split: None };
        let newest = layout.name();
        self.ring.notes.past.insert(newest, past);
        self.ring.add(alloc::vec![layout]);
        self.stage_again(base, newest);
        Ok(())
    }

    /// What was staged on a layout is staged on another one, with the same nodes.
    fn stage_again(&mut self, base: LayoutRef, newest: LayoutRef) {
        let notes = &mut self.ring.notes;
        let staged = notes.staged.values_mut().filter(|staged| staged.base == base);
        staged.for_each(|staged| staged.base = newest);
        let policy = notes.policy.iter_mut().filter(|staged| staged.base == base);
        policy.for_each(|staged| staged.base = newest);
        let split = notes.split.iter_mut().filter(|staged| staged.base == base);
        split.for_each(|staged| staged.base = newest);
    }

    fn skip(&mut self, name: &Name) -> Result<(), ErrorReply> {
        let (node, newest) = (NodeId::from_name(name), self.ring.newest().name());
        let refused = if !self.ring.live.iter().any(|layout| layout.node(node).is_some()) {
            Some(format!("node {name} is in no live layout: `rejoin layout show` lists the members"))
        } else if self.ring.live.len() < 2 {
            Some("no change of layout is under way, so none waits for it".to_string())
        } else if node == self.node || self.up.contains_key(&node) {
            Some(format!("node {name} answers. Only a node that will not come back may be skipped: stop it first"))
        } else {
            None
        };
        match refused {
            Some(why) => Err(bad(why)),
            None => {
                self.ring.notes.skipped.insert(node, newest);
                Ok(())
            }
        }
    }
}

fn number_after(known: Option<(LayoutRef, u32)>, base: LayoutRef) -> u32 {
    known.filter(|(known, _)| *known == base).map_or(1, |(_, number)| number.saturating_add(1))
}

fn bad(why: alloc::string::String) -> ErrorReply {
    ErrorReply::new(ErrorCode::BadRequest, why)
}
