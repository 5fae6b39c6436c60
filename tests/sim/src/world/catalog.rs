//! The task that owns a node's catalog: it handles one event at a time and waits for each save. The product's own
//! [`Control`](rejoin_core::control::Control) decides.

use rejoin_core::control::{CatalogEffect, CatalogEvent};
use rejoin_core::node::links::LinkEvent;
use rejoin_proto::peer::PeerEnvelope;
use rejoin_proto::{ErrorCode, ErrorReply};

use super::{Occurrence, World};
use crate::history::NodeIndex;

impl World {
    /// Queues an event for a node's catalog. `told` is a connection whose links are told when it is handled.
    pub(super) fn tell_control(&mut self, at: NodeIndex, event: CatalogEvent, told: Option<u32>) {
        if let Some(running) = &mut self.nodes[usize::from(at)].running {
            running.control.queue.push_back((event, told));
            self.want_control(at, self.now_us + 1);
        }
    }

    /// Plans a turn at that time, or at the end of the current save, unless an earlier one is planned.
    fn want_control(&mut self, at: NodeIndex, at_us: u64) {
        let node = &mut self.nodes[usize::from(at)];
        let life = node.life;
        let Some(running) = &mut node.running else { return };
        let at_us = at_us.max(running.control.busy_until_us);
        if at_us < running.control.wake_us {
            running.control.wake_us = at_us;
            self.plan_at(at_us, Occurrence::Control { node: at, life });
        }
    }

    /// A turn of the catalog's task.
    pub(super) fn control_due(&mut self, at: NodeIndex) {
        let (now, wall_ms, now_us) = (self.clock(at), self.wall_ms(at), self.now_us);
        let sync_us = self.nodes[usize::from(at)].sync_us;
        let Some(running) = &mut self.nodes[usize::from(at)].running else { return };
        if running.control.wake_us <= now_us {
            running.control.wake_us = u64::MAX;
        }
        if running.control.busy_until_us > now_us {
            return self.want_control(at, now_us);
        }
        let (event, told) = match running.control.saving.take() {
            Some(told) => (CatalogEvent::Saved(self.save_catalog(at)), told),
            None => running.control.queue.pop_front().unwrap_or((CatalogEvent::Tick, None)),
        };
        let Some(running) = &mut self.nodes[usize::from(at)].running else { return };
        let mut effects = Vec::new();
        running.control.control.handle(now.mono_us, wall_ms, event, &mut effects);
        let saves = effects.last() == Some(&CatalogEffect::Save);
        if saves {
            running.control.saving = Some(told);
            running.control.busy_until_us = now_us + sync_us / 2 + self.faults.exponential(sync_us / 2);
        }
        self.control_effects(at, effects, told.filter(|_| !saves));
        if saves {
            return self.want_control(at, now_us);
        }
        let Some(running) = &self.nodes[usize::from(at)].running else { return };
        if !running.control.queue.is_empty() {
            self.want_control(at, now_us + 1);
        } else if let Some(due_us) = running.control.control.next_wake_us() {
            self.want_control(at, due_us.max(now_us + 1));
        }
    }

    /// Ends a save: a full disk does not take it.
    fn save_catalog(&mut self, at: NodeIndex) -> Result<(), ErrorReply> {
        let node = &mut self.nodes[usize::from(at)];
        if node.is_full() {
            self.recorder.mark("catalog not saved");
            return Err(ErrorReply::new(ErrorCode::DiskFull, "the disk is full"));
        }
        if let Some(running) = &node.running {
            node.catalog = running.control.control.catalog();
        }
        Ok(())
    }

    fn control_effects(&mut self, at: NodeIndex, effects: Vec<CatalogEffect>, told: Option<u32>) {
        for effect in effects {
            match effect {
                CatalogEffect::Save => {}
                CatalogEffect::Changed => self.view_changed(at),
                CatalogEffect::Send(peer, body) => {
                    let to = self.keys.index(peer);
                    let envelope = PeerEnvelope { layout: self.view.layout_name(), trace: 0, body };
                    self.send(at, to, Box::new(envelope));
                }
                CatalogEffect::Answer(_, result) => {
                    self.recorder.mark(if result.is_ok() { "catalog change" } else { "catalog change refused" });
                }
                CatalogEffect::Overruled { .. } => self.recorder.mark("bucket that lost its name"),
                CatalogEffect::CaughtUp(peer) => self.link_event(at, LinkEvent::CaughtUp(peer)),
            }
        }
        if let Some(connection) = told {
            self.link_event(at, LinkEvent::CatalogSent(u64::from(connection)));
        }
    }
}
