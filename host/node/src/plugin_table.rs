//! Which plugins a node has, lacks, keeps and has refused. `plugins` loads, fetches and stores them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use rejoin_core::view::ClusterView;
use rejoin_merge::{Plugin, Rejection, TenantShare};
use rejoin_proto::catalog::Transcript;
use rejoin_proto::{Hlc, Name, PluginDigest, TenantId};

use crate::transcripts::difference;

/// The pause before a plugin is compiled again that failed for a reason of this machine. It doubles with each failure,
/// up to `MAX_RETRY_PAUSE`.
const FIRST_RETRY_PAUSE: Duration = Duration::from_secs(30);
const MAX_RETRY_PAUSE: Duration = Duration::from_secs(3600);
/// The most plugins in memory that no bucket uses: those pushed or asked for last.
const MAX_IDLE: usize = 8;
/// The most modules on the disk that no bucket uses: those of the last pushes. All nodes go by the times of the
/// catalog, so they keep the same ones.
pub(crate) const MAX_UNUSED_MODULES: usize = 64;
/// For so long a node that has agreed with the transcripts that a release has cleared leaves recording to the others.
const RECORD_AFTER: Duration = Duration::from_secs(10);

/// The state of each plugin. It has only plugins that the catalog names or that are being pushed.
#[derive(Default)]
pub(crate) struct PluginTable {
    pub(crate) ready: BTreeMap<PluginDigest, LoadedPlugin>,
    pub(crate) refused: BTreeMap<PluginDigest, RefusedPlugin>,
    /// The plugins that the catalog names.
    pub(crate) named: BTreeMap<PluginDigest, NamedPlugin>,
    /// The named plugins whose modules are kept on the disk.
    pub(crate) wanted: BTreeSet<PluginDigest>,
    /// The other named plugins: no bucket uses them, and others were pushed since.
    pub(crate) removed: BTreeSet<PluginDigest>,
    /// The plugins that were deleted, or whose tenant is gone, and that no other tenant has.
    pub(crate) deleted: BTreeSet<PluginDigest>,
    /// The removed and deleted plugins, and those pushed in vain, whose module may still be on the disk.
    pub(crate) to_remove: BTreeSet<PluginDigest>,
    /// Pushes under way at this node, by plugin.
    pub(crate) pushing: BTreeMap<PluginDigest, usize>,
    /// The last plugins that were pushed at this node since its start, and their order. Pushing a plugin again does not
    /// change its time in the catalog.
    pub(crate) pushed: BTreeMap<PluginDigest, u64>,
    /// The wanted plugins that buckets use.
    pub(crate) active: BTreeSet<PluginDigest>,
    /// Wanted plugins that no bucket uses: their module is on the disk, and their machine code not in memory.
    pub(crate) shelved: BTreeSet<PluginDigest>,
    /// How many plugins have become ready so far.
    pub(crate) made_ready: u64,
    /// Plugins that are being compiled and stored. Every peer that was asked may send the same one.
    pub(crate) compiling: BTreeSet<PluginDigest>,
    /// When the transcripts that the catalog lacks are recorded again.
    pub(crate) recording: BTreeMap<PluginDigest, Instant>,
    /// When those that were loaded because somebody asked about them are loaded for that again.
    pub(crate) prepared: BTreeMap<PluginDigest, Instant>,
}

/// A plugin that the catalog names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NamedPlugin {
    /// When it was pushed.
    pub(crate) stamp: Hlc,
    /// Who has pushed it: compiling it is done on its share.
    pub(crate) share: TenantShare,
    /// The transcript that this node must get as well.
    pub(crate) recorded: Option<Transcript>,
    /// A tenant whose record has none for this engine.
    pub(crate) unrecorded: Option<TenantId>,
}

impl NamedPlugin {
    /// What there is to know of a plugin that two tenants have pushed: the last one counts.
    pub(crate) fn joined(self, other: Self) -> Self {
        let last = if self.stamp < other.stamp { other } else { self };
        let (recorded, unrecorded) = (self.recorded.or(other.recorded), self.unrecorded.or(other.unrecorded));
        Self { recorded, unrecorded, ..last }
    }
}

/// The share of a tenant where tenants wait for each other.
pub(crate) fn share(view: &ClusterView, tenant: TenantId) -> TenantShare {
    TenantShare { tenant: tenant.0, weight: view.weight(tenant) }
}

/// Plugins of several tenants in such an order that each tenant's first one comes before any one's second.
pub(crate) fn interleaved(plugins: impl Iterator<Item = (PluginDigest, TenantShare)>) -> Vec<PluginDigest> {
    let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
    let mut placed: Vec<(usize, PluginDigest)> = plugins
        .map(|(digest, share)| {
            let count = counts.entry(share.tenant).or_default();
            *count += 1;
            (*count, digest)
        })
        .collect();
    placed.sort_unstable();
    placed.into_iter().map(|(_, digest)| digest).collect()
}

/// A plugin that can be used.
pub(crate) struct LoadedPlugin {
    pub(crate) plugin: Plugin,
    pub(crate) transcript: Option<Transcript>,
    /// Its place in the order in which plugins became ready.
    pub(crate) order: u64,
}

/// A plugin that is stored here and cannot be used.
pub(crate) struct RefusedPlugin {
    pub(crate) reason: String,
    /// When it is compiled again, and the pause after that; `None` if the reason is final.
    pub(crate) retry: Option<(Instant, Duration)>,
    /// Its transcript here, if that is the reason.
    pub(crate) differs: Option<Transcript>,
}

impl PluginTable {
    /// The transcript that a plugin must have.
    pub(crate) fn recorded(&self, digest: &PluginDigest) -> Option<Transcript> {
        self.named.get(digest).and_then(|named| named.recorded)
    }

    /// Makes a plugin ready that was loaded, unless its transcript differs from the recorded one.
    pub(crate) fn admit(&mut self, node: &Name, plugin: Plugin, own: Option<Transcript>) -> Result<Plugin, Rejection> {
        let digest = plugin.digest();
        match difference(node, &digest, own, self.recorded(&digest)) {
            None => {
                self.make_ready(plugin.clone(), own);
                Ok(plugin)
            }
            Some(differs) => {
                self.refuse_differing(digest, &differs, own);
                Err(differs)
            }
        }
    }

    pub(crate) fn refuse_differing(&mut self, digest: PluginDigest, differs: &Rejection, own: Option<Transcript>) {
        // It may have been ready before the machine became unsound.
        self.ready.remove(&digest);
        self.refuse(digest, differs);
        if let Some(refused) = self.refused.get_mut(&digest) {
            refused.differs = own;
        }
    }

    /// Whether the module is kept on the disk.
    pub(crate) fn keeps(&self, digest: &PluginDigest) -> bool {
        self.wanted.contains(digest) || self.pushing.contains_key(digest)
    }

    /// Notes which transcripts are about to be cleared that this node has agreed with. It may be the one that computes
    /// wrongly.
    pub(crate) fn note_cleared(&mut self, named: &BTreeMap<PluginDigest, NamedPlugin>) {
        let after = Instant::now() + RECORD_AFTER;
        let cleared = named.iter().filter(|(digest, now)| {
            let had = self.recorded(digest);
            let is_cleared = now.recorded.is_none() && had.is_some();
            is_cleared && self.ready.get(digest).is_some_and(|loaded| loaded.transcript == had)
        });
        let cleared: Vec<PluginDigest> = cleared.map(|(digest, _)| *digest).collect();
        self.recording.extend(cleared.into_iter().map(|digest| (digest, after)));
    }

    /// Compares with what is recorded now. Returns the plugins that are not run any more, with the reasons.
    pub(crate) fn compare(&mut self, node: &Name) -> Vec<(PluginDigest, Rejection)> {
        let compared = self.ready.iter().filter_map(|(digest, loaded)| {
            let differs = difference(node, digest, loaded.transcript, self.recorded(digest))?;
            Some((*digest, differs, loaded.transcript))
        });
        let differing: Vec<(PluginDigest, Rejection, Option<Transcript>)> = compared.collect();
        for (digest, differs, own) in &differing {
            self.refuse_differing(*digest, differs, *own);
        }
        // One that differed from an earlier record is loaded again.
        let Self { refused, named, .. } = self;
        refused.retain(|digest, of| {
            let recorded = named.get(digest).and_then(|named| named.recorded);
            of.differs.is_none() || difference(node, digest, of.differs, recorded).is_some()
        });
        differing.into_iter().map(|(digest, differs, _)| (digest, differs)).collect()
    }

    pub(crate) fn lacks(&self, digest: &PluginDigest) -> bool {
        let rests = |refused: &RefusedPlugin| refused.retry.is_none_or(|(at, _)| Instant::now() < at);
        let is_here = self.ready.contains_key(digest) || self.shelved.contains(digest);
        !is_here && !self.refused.get(digest).is_some_and(rests)
    }

    /// Decides which of the named plugins are kept on the disk: those that buckets use, and the last ones pushed.
    pub(crate) fn update_wanted(&mut self) {
        let unused = self.named.iter().filter(|(digest, _)| !self.active.contains(digest));
        let pushed = |digest| self.pushed.get(digest).copied().unwrap_or(0);
        let mut unused: Vec<(u64, Hlc, PluginDigest)> =
            unused.map(|(digest, named)| (pushed(digest), named.stamp, *digest)).collect();
        unused.sort_unstable();
        let surplus = unused.len().saturating_sub(MAX_UNUSED_MODULES);
        let removed: BTreeSet<PluginDigest> = unused.iter().take(surplus).map(|(_, _, digest)| *digest).collect();
        self.wanted = self.named.keys().filter(|digest| !removed.contains(digest)).copied().collect();
        self.to_remove.extend(removed.difference(&self.removed));
        self.removed = removed;
        let Self { wanted, active, refused, shelved, to_remove, pushing, .. } = self;
        to_remove.retain(|digest| !wanted.contains(digest) && !pushing.contains_key(digest));
        refused.retain(|digest, _| wanted.contains(digest));
        shelved.retain(|digest| wanted.contains(digest) && !active.contains(digest));
        self.shelve_the_idle();
    }

    /// Notes that a push begins. Its module is kept until enough others were pushed.
    pub(crate) fn note_push(&mut self, digest: PluginDigest) {
        *self.pushing.entry(digest).or_default() += 1;
        self.to_remove.remove(&digest);
        let order = self.pushed.values().max().map_or(1, |last| last + 1);
        self.pushed.insert(digest, order);
        self.pushed.retain(|_, of| *of + MAX_UNUSED_MODULES as u64 > order);
        self.update_wanted();
    }

    pub(crate) fn make_ready(&mut self, plugin: Plugin, transcript: Option<Transcript>) {
        let digest = plugin.digest();
        self.refused.remove(&digest);
        self.shelved.remove(&digest);
        self.made_ready += 1;
        self.ready.insert(digest, LoadedPlugin { plugin, transcript, order: self.made_ready });
        self.shelve_the_idle();
    }

    /// Drops the machine code of plugins that no bucket uses, except the last few.
    pub(crate) fn shelve_the_idle(&mut self) {
        let idle = self.ready.iter().filter(|(digest, _)| !self.active.contains(digest));
        let mut idle: Vec<(u64, PluginDigest)> = idle.map(|(digest, ready)| (ready.order, *digest)).collect();
        idle.sort_unstable();
        for (_, digest) in idle.iter().take(idle.len().saturating_sub(MAX_IDLE)) {
            self.ready.remove(digest);
            // A plugin that is only being pushed is loaded when the catalog names it.
            if self.wanted.contains(digest) {
                self.shelved.insert(*digest);
            }
        }
    }

    /// Leaves a stored plugin on the disk until it is needed, if no bucket uses it and enough such plugins are in
    /// memory. Returns whether it does.
    pub(crate) fn shelve(&mut self, digest: &PluginDigest) -> bool {
        let idle = self.ready.keys().filter(|digest| !self.active.contains(digest)).count();
        !self.active.contains(digest) && idle >= MAX_IDLE && self.shelved.insert(*digest)
    }

    pub(crate) fn refuse(&mut self, digest: PluginDigest, rejection: &Rejection) {
        if !self.wanted.contains(&digest) {
            return;
        }
        let pause =
            self.refused.get(&digest).and_then(|refused| refused.retry).map_or(FIRST_RETRY_PAUSE, |(_, next)| next);
        let retry = (!rejection.is_final()).then(|| (Instant::now() + pause, (pause * 2).min(MAX_RETRY_PAUSE)));
        self.refused.insert(digest, RefusedPlugin { reason: rejection.to_string(), retry, differs: None });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(number: u64) -> PluginDigest {
        rejoin_merge::digest_of(&number.to_le_bytes())
    }

    #[test]
    fn a_tenant_with_many_plugins_to_load_does_not_hold_another_one_up() {
        let share = |tenant| TenantShare { tenant, weight: 1 };
        let many = (0..50).map(|number| (digest(number), share(1)));
        let order = interleaved(many.chain([(digest(100), share(2)), (digest(101), share(2))]));
        let place = |number| order.iter().position(|known| *known == digest(number)).expect("it is there");
        assert_eq!(order.len(), 52);
        assert!(place(100) < 2 && place(101) < 4, "{} and {}", place(100), place(101));
    }

    #[test]
    fn the_pushes_that_are_noted_are_bounded() {
        let mut table = PluginTable::default();
        for number in 0..1_000 {
            table.note_push(digest(number));
        }
        assert_eq!(table.pushed.len(), MAX_UNUSED_MODULES);
        assert!(table.pushed.contains_key(&digest(999)) && !table.pushed.contains_key(&digest(0)));
    }
}
