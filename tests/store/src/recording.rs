//! Records a script: every call that the store makes to the disk, and every promise that it gives.

use std::path::Path;
use std::sync::Arc;

use rejoin_core::port::{Row, Store, StoreFault};

use crate::node::{Node, SHARD, keys_of};
use crate::{Call, DiskEvent, Image, Machine, MemoryDisk, Model, Random, Step, Survival, Tree, scratch, script};

/// How many steps a script has.
pub const STEPS: u64 = 1000;

/// An event of a recording.
#[derive(Clone, Debug)]
pub enum Event {
    /// At the disk.
    DiskEvent(DiskEvent),
    /// At the store's interface.
    Promise(Promise),
}

/// A call to the store, or its result.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Promise {
    /// A change was made.
    Wrote(Vec<Row>),
    /// Everything up to this change was committed.
    Committed(u64),
    /// Everything up to this change was synced.
    Synced(u64),
    /// The process ended.
    Ended,
    /// The power failed, and this was found.
    Found(Image),
    /// The store was opened again and had everything up to this change.
    Opened(u64),
    /// New actors are durable, if any were owed.
    Settled,
}

/// A recorded script.
pub struct Recording {
    /// The seed of the script.
    pub seed: u64,
    /// The events, in order.
    pub events: Vec<Event>,
    /// How often no row was left under an older key.
    pub resealed: u64,
}

impl Recording {
    /// Runs the script of a seed and records it.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::of(seed, None)
    }

    /// Runs the script of a seed with a key that every start replaces by another one, and records it. The first start
    /// has none.
    #[must_use]
    pub fn with_keys(seed: u64) -> Self {
        Self::of(seed, Some(0))
    }

    fn of(seed: u64, starts: Option<u8>) -> Self {
        let root = scratch();
        let mut running = Running::start(root.path(), seed, starts);
        script(seed, STEPS).into_iter().for_each(|step| running.step(step));
        Self { seed, events: running.events, resealed: running.resealed }
    }

    /// A cursor at the empty disk.
    #[must_use]
    pub fn walk(&self) -> Cursor<'_> {
        let (machine, model) = (Machine::default(), Model::default());
        Cursor {
            events: &self.events,
            place: 0,
            machine,
            model,
            tree: Arc::default(),
            opened: false,
            process_only: true,
            cut: false,
            starting: true,
        }
    }
}

/// A script under way.
struct Running<'a> {
    root: &'a Path,
    disk: MemoryDisk,
    node: Option<Node>,
    model: Model,
    random: Random,
    events: Vec<Event>,
    /// How many starts there were, if each has a key of its own.
    starts: Option<u8>,
    resealed: u64,
}

impl<'a> Running<'a> {
    fn start(root: &'a Path, seed: u64, starts: Option<u8>) -> Self {
        let disk = MemoryDisk::new(root, &Image::default()).watching(&root.join(SHARD).join("tree"));
        let (model, random) = (Model::default(), Random::new(seed, 2));
        let mut running = Self { root, disk, node: None, model, random, events: Vec::new(), starts, resealed: 0 };
        running.open();
        running
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Write(change) => {
                let rows = change.rows.clone();
                while let Err(fault) = self.node().store.write(change.clone()) {
                    assert_eq!(fault, StoreFault::Busy);
                    self.step(Step::Commit);
                    self.node().store.maintenance().run().unwrap();
                }
                self.tell(Promise::Wrote(rows));
            }
            Step::Commit => {
                let number = self.node().store.commit().unwrap().0;
                self.tell(Promise::Committed(number));
            }
            Step::Sync => {
                let number = self.node().store.syncer().sync().unwrap().0;
                self.tell(Promise::Synced(number));
            }
            Step::Maintain => {
                let is_done =
                    |node: &Node| node.store.sealed_rows().is_none_or(|rows| rows.older.is_empty() && !rows.plain);
                let was_done = is_done(self.node());
                // With keys there is a step for every table.
                while self.node().store.maintenance().run().unwrap().more && self.starts.is_some() {}
                self.resealed += u64::from(!was_done && is_done(self.node()));
                self.collect();
            }
            Step::Kill => {
                self.node = None;
                self.tell(Promise::Ended);
                self.open();
            }
            Step::Stop => {
                let Node { data, store, .. } = self.node.take().expect("a node that runs");
                let number = self.model.made();
                store.close().unwrap();
                self.tell(Promise::Committed(number));
                self.tell(Promise::Synced(number));
                data.mark_clean().unwrap();
                self.tell(Promise::Ended);
                self.open();
            }
            Step::PowerCut => {
                self.node = None;
                self.tell(Promise::Ended);
                let mut image = self.disk.machine().crash(Survival::Sectors(crate::SECTOR), &mut self.random).image;
                image.reboot();
                self.disk = MemoryDisk::new(self.root, &image).watching(&self.root.join(SHARD).join("tree"));
                self.tell(Promise::Found(image));
                self.open();
            }
        }
    }

    fn node(&mut self) -> &mut Node {
        self.node.as_mut().expect("a node that runs")
    }

    fn open(&mut self) {
        let keys = self.starts.filter(|starts| *starts > 0).map(keys_of);
        self.starts = self.starts.map(|starts| starts + 1);
        let mut node = Node::open_with(self.root, &self.disk, keys).unwrap();
        assert_eq!(node.recovery.lost, Vec::<String>::new());
        let end = node.store.commit().unwrap().0;
        assert!((self.model.synced()..=self.model.made()).contains(&end), "{end} was found");
        assert_eq!(self.model.difference(&node.rows().unwrap(), end), None);
        self.tell(Promise::Opened(end));
        node.renew_actors();
        self.tell(Promise::Settled);
        node.data.settle().unwrap();
        self.node = Some(node);
        self.collect();
    }

    fn collect(&mut self) {
        self.events.extend(self.disk.seen().into_iter().map(Event::DiskEvent));
    }

    fn tell(&mut self, told: Promise) {
        self.collect();
        hear(&mut self.model, &told);
        self.events.push(Event::Promise(told));
    }
}

/// Tells the model.
fn hear(model: &mut Model, told: &Promise) {
    match told {
        Promise::Wrote(rows) => model.write(rows.clone()),
        Promise::Committed(number) => model.commit(*number),
        Promise::Synced(number) => model.sync(*number),
        Promise::Ended => model.kill(),
        Promise::Found(_) => {}
        Promise::Opened(number) => model.reopen(*number),
        Promise::Settled => model.settle(),
    }
}

/// A moment of a recording: the disk and the promises at that time.
pub struct Cursor<'a> {
    events: &'a [Event],
    /// The number of events before it.
    pub place: usize,
    /// The disk.
    pub machine: Machine,
    /// What was promised.
    pub model: Model,
    /// The tree's directory.
    pub tree: Arc<Tree>,
    /// Whether the store was ever open: before that nothing was promised.
    pub opened: bool,
    /// Whether the power has never failed so far.
    pub process_only: bool,
    /// Whether the power has failed and the store is not open again.
    cut: bool,
    /// Whether the process has ended and the store is not open again.
    starting: bool,
}

impl<'a> Cursor<'a> {
    /// Goes on to the moment right before the next thing that happens below the store, with all promises given until
    /// then, and says what it will be; `None` at the end.
    pub fn next_moment(&mut self) -> Option<&'a DiskEvent> {
        while let Event::Promise(told) = self.events.get(self.place)? {
            self.place += 1;
            hear(&mut self.model, told);
            match told {
                Promise::Opened(_) => (self.opened, self.cut) = (true, false),
                Promise::Ended => self.starting = true,
                Promise::Settled => self.starting = false,
                Promise::Found(image) => {
                    (self.machine, self.process_only, self.cut) = (Machine::holding(image), false, true)
                }
                _ => {}
            }
        }
        match &self.events[self.place] {
            Event::DiskEvent(seen) => Some(seen),
            Event::Promise(_) => None,
        }
    }

    /// Applies the next event.
    pub fn pass(&mut self) {
        self.pass_unless(|_| false);
    }

    /// Applies the next event; a sync of a file about which the disk lies does nothing.
    pub fn pass_unless(&mut self, lies: impl FnOnce(&str) -> bool) {
        match &self.events[self.place] {
            Event::DiskEvent(DiskEvent::Call(Call::Sync(file))) if lies(self.machine.name_of(*file)) => {}
            Event::DiskEvent(DiskEvent::Call(call)) => self.machine.apply(call),
            Event::DiskEvent(DiskEvent::Tree(tree)) => self.tree = Arc::clone(tree),
            Event::Promise(told) => hear(&mut self.model, told),
        }
        self.place += 1;
    }

    /// Whether a process is under way that has not finished its start.
    #[must_use]
    pub fn is_starting(&self) -> bool {
        self.starting
    }

    /// Up to which change everything must be found if only the process ends now.
    #[must_use]
    pub fn written(&self) -> u64 {
        if self.cut { self.model.synced() } else { self.model.heard() }
    }

    /// The calls from here on, up to the next promise or change of the tree.
    pub fn calls_ahead(&self) -> impl Iterator<Item = &'a Call> + use<'a> {
        self.events[self.place..].iter().map_while(|event| match event {
            Event::DiskEvent(DiskEvent::Call(call)) => Some(call),
            _ => None,
        })
    }
}

/// What the mark has said when it was last synced.
#[derive(Clone, Copy, Default, Debug)]
pub struct Witness {
    /// The last change that had been synced by then.
    pub synced: u64,
    /// The same of a mark that is to replace the present one.
    next: Option<u64>,
}

impl Witness {
    /// What comes next at the disk, where a cursor is.
    pub fn hear(&mut self, walk: &Cursor<'_>, next: &DiskEvent) {
        let synced = walk.model.synced();
        match next {
            DiskEvent::Call(Call::Sync(file)) => match walk.machine.name_of(*file).strip_prefix(SHARD) {
                Some("/mark") => self.synced = synced,
                Some("/mark.new") => self.next = Some(synced),
                _ => {}
            },
            DiskEvent::Call(Call::SyncNames(dir)) if dir == SHARD => {
                self.synced = self.next.take().unwrap_or(self.synced);
            }
            _ => {}
        }
    }
}
