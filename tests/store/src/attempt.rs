//! Runs a script on a disk or a tree whose calls fail, until the store stops or the script ends.

use std::path::Path;

use rejoin_core::port::{Store, StoreFault};

use crate::{Image, MemoryDisk, Model, Node, Step, script};

/// Tries of a write that is refused for a transient fault.
const TRIES: usize = 3;

/// A running or finished script.
pub struct Attempt<'a> {
    /// The data directory.
    pub root: &'a Path,
    /// The disk of all files but the tree's.
    pub disk: MemoryDisk,
    /// The node; `None` once it has stopped, or if it could not start.
    pub node: Option<Node>,
    /// What the store has promised.
    pub model: Model,
    /// The reason if the running store has failed. The node is kept, to be looked at.
    pub failed: Option<String>,
}

/// Why the store has stopped, or could not be opened.
#[derive(Debug)]
pub struct Stopped(String);

impl Stopped {
    fn of(why: impl ToString) -> Self {
        Self(why.to_string())
    }
}

impl<'a> Attempt<'a> {
    /// Runs so many steps of the script of a seed, without its power cuts. `prepare` breaks the disk.
    #[must_use]
    pub fn new(root: &'a Path, seed: u64, steps: u64, prepare: impl FnOnce(&MemoryDisk)) -> Self {
        let disk = MemoryDisk::new(root, &Image::default());
        prepare(&disk);
        let mut attempt = Self { root, disk, node: None, model: Model::default(), failed: None };
        let steps = script(seed, steps).into_iter().filter(|step| *step != Step::PowerCut);
        let ended = attempt.open().and_then(|()| steps.into_iter().try_for_each(|step| attempt.step(step)));
        attempt.failed = ended.err().map(|Stopped(why)| why).filter(|_| attempt.node.is_some());
        attempt
    }

    /// Starts the node on the present files.
    ///
    /// # Errors
    /// [`Stopped`] if it does not start.
    ///
    /// # Panics
    /// If a loss is said of what can be had.
    pub fn open(&mut self) -> Result<(), Stopped> {
        let mut node = Node::open(self.root, &self.disk).map_err(Stopped::of)?;
        assert_eq!(node.recovery.lost, Vec::<String>::new(), "a loss is said of what can be had");
        self.model.reopen(goes_on(node.store.commit())?.0);
        goes_on(node.store.syncer().sync())?;
        node.data.settle().map_err(Stopped::of)?;
        self.node = Some(node);
        Ok(())
    }

    /// Does one step.
    ///
    /// # Errors
    /// [`Stopped`] if the store stops at it, or does not start again.
    pub fn step(&mut self, step: Step) -> Result<(), Stopped> {
        let Some(Node { store, .. }) = &mut self.node else { return Err(Stopped::of("there is no node")) };
        match step {
            Step::Write(change) => {
                for _ in 0..TRIES {
                    match store.write(change.clone()) {
                        Ok(()) => {
                            self.model.write(change.rows);
                            break;
                        }
                        refused => passes(refused)?,
                    }
                    self.model.commit(goes_on(store.commit())?.0);
                    passes(store.maintenance().run().map(drop))?;
                }
            }
            Step::Commit => self.model.commit(goes_on(store.commit())?.0),
            Step::Sync => self.model.sync(goes_on(store.syncer().sync())?.0),
            Step::Maintain => passes(store.maintenance().run().map(drop))?,
            Step::Kill | Step::PowerCut => {
                self.node = None;
                self.model.kill();
                self.open()?;
            }
            Step::Stop => {
                let made = self.model.made();
                let Some(Node { data, store, .. }) = self.node.take() else {
                    return Err(Stopped::of("there is no node"));
                };
                goes_on(store.close())?;
                self.model.commit(made);
                self.model.sync(made);
                data.mark_clean().map_err(Stopped::of)?;
                self.open()?;
            }
        }
        Ok(())
    }
}

/// Asserts that a call that the store may not refuse fails only once the store has failed.
fn goes_on<T>(result: Result<T, StoreFault>) -> Result<T, Stopped> {
    result.map_err(|fault| {
        assert!(matches!(fault, StoreFault::Failed(_)), "{fault}");
        Stopped::of(fault)
    })
}

/// Accepts transient faults, after which the store goes on.
///
/// # Errors
/// [`Stopped`] for a fault that does not pass.
pub fn passes(result: Result<(), StoreFault>) -> Result<(), Stopped> {
    match result {
        Ok(()) | Err(StoreFault::Full | StoreFault::Busy | StoreFault::Damaged(_)) => Ok(()),
        Err(fault) => Err(Stopped::of(fault)),
    }
}
