//! The histories in which sets and maps of replicated systems have gone wrong.

use self::Act::{Add, Fold, Other, Remove, Restore, Save, Sync};
use crate::history::intent::Intent;
use crate::history::linear::{Done, Judge};
use crate::memoised::Memoised;
use crate::merge::Merge;
use crate::scenario::{DiskImage, ModelCluster, ScenarioError};

/// A named history of three replicas, with an addition, its removal and another addition, see
/// [`Roles`](crate::Roles).
#[derive(Clone, Copy, Debug)]
pub struct Classic {
    /// A short name for reports.
    pub name: &'static str,
    /// What happens, and who has had it wrong.
    pub about: &'static str,
    acts: &'static [Act],
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Add(&'static str),
    Remove(&'static str),
    Other(&'static str),
    Sync(&'static str, &'static str),
    Fold(&'static str),
    /// Keeps the disk of the replica.
    Save(&'static str),
    /// The replica comes back with the disk that was kept.
    Restore(&'static str),
}

const REPLICAS: [&str; 3] = ["east", "west", "south"];

/// Every classic.
pub const CLASSICS: [Classic; 17] = [
    Classic {
        name: "both sides write",
        about: "Two replicas write while apart: neither write may be lost.",
        acts: &[Add("east"), Other("west"), Sync("east", "west")],
    },
    Classic {
        name: "three sides write",
        about: "Three replicas write while apart and meet two by two, with folds between.",
        acts: &[
            Add("east"),
            Other("west"),
            Add("south"),
            Sync("east", "west"),
            Fold("east"),
            Sync("west", "south"),
            Fold("south"),
            Sync("south", "east"),
        ],
    },
    Classic {
        name: "an old disk is written to",
        about: "A replica comes back with an old disk, and the next write there is the same as one that it has lost.",
        acts: &[
            Add("east"),
            Sync("east", "south"),
            Save("south"),
            Other("south"),
            Sync("south", "east"),
            Restore("south"),
            Other("south"),
            Sync("south", "west"),
        ],
    },
    Classic {
        name: "add again",
        about: "What was removed is added again where it was removed: sets with tombstones for names never get it \
                back.",
        acts: &[Add("east"), Sync("east", "west"), Remove("east"), Add("east"), Sync("east", "west")],
    },
    Classic {
        name: "add again elsewhere",
        about: "The same, added again at another replica that has seen the removal.",
        acts: &[Add("east"), Remove("east"), Sync("east", "west"), Add("west"), Sync("west", "south")],
    },
    Classic {
        name: "add again beside an old copy",
        about: "The same, while a third replica still has the first addition.",
        acts: &[
            Add("east"),
            Sync("east", "south"),
            Remove("east"),
            Add("east"),
            Sync("east", "west"),
            Remove("west"),
            Sync("west", "south"),
        ],
    },
    Classic {
        name: "add against remove",
        about: "An addition and a removal that do not see each other.",
        acts: &[Add("east"), Sync("east", "west"), Remove("east"), Add("west"), Sync("east", "west")],
    },
    Classic {
        name: "a removal of nothing",
        about: "A removal where nothing is there must not remove what another replica adds and removes nothing later.",
        acts: &[Remove("west"), Add("east"), Sync("east", "west"), Other("west"), Sync("west", "south")],
    },
    Classic {
        name: "removed while others write",
        about: "A removal, while a replica that has the old value adds something else: a union brings it back.",
        acts: &[Add("east"), Sync("east", "west"), Remove("east"), Other("west"), Sync("east", "west")],
    },
    Classic {
        name: "an old replica returns",
        about: "A replica comes back with a disk from before the removal, and is written to.",
        acts: &[
            Add("east"),
            Sync("east", "south"),
            Save("south"),
            Remove("east"),
            Sync("east", "south"),
            Restore("south"),
            Other("south"),
            Sync("south", "west"),
        ],
    },
    Classic {
        name: "the removal arrives first",
        about: "A third replica hears of the removal before it hears of the addition.",
        acts: &[
            Add("east"),
            Sync("east", "west"),
            Remove("west"),
            Sync("west", "south"),
            Other("south"),
            Sync("east", "south"),
        ],
    },
    Classic {
        name: "two remove and one adds",
        about: "Two replicas remove what they have seen, and the third adds again.",
        acts: &[
            Add("east"),
            Sync("east", "west"),
            Sync("east", "south"),
            Remove("west"),
            Remove("south"),
            Add("east"),
            Sync("west", "south"),
            Sync("east", "west"),
        ],
    },
    Classic {
        name: "two add and one removes",
        about: "Two replicas add the same, and a third that has seen only one of them removes it: the three-replica \
                fault of sets that keep one tag for a name.",
        acts: &[
            Add("east"),
            Add("west"),
            Sync("east", "south"),
            Remove("south"),
            Sync("south", "east"),
            Sync("east", "west"),
        ],
    },
    Classic {
        name: "a removal is relayed",
        about: "A removal goes round over a replica that writes, and comes to the one that added: last-writer maps \
                that drop removals have lost it by then.",
        acts: &[
            Add("east"),
            Sync("east", "west"),
            Sync("west", "south"),
            Remove("west"),
            Sync("west", "south"),
            Other("south"),
            Fold("south"),
            Sync("south", "east"),
        ],
    },
    Classic {
        name: "folds apart",
        about: "Two replicas fold different siblings, and one removes before they meet.",
        acts: &[
            Add("east"),
            Other("west"),
            Add("south"),
            Sync("east", "west"),
            Sync("west", "south"),
            Fold("east"),
            Fold("west"),
            Remove("west"),
            Sync("east", "south"),
            Sync("west", "south"),
        ],
    },
    Classic {
        name: "removed twice",
        about: "What was removed is removed again at a replica that has not heard of the first removal.",
        acts: &[
            Add("east"),
            Sync("east", "west"),
            Remove("east"),
            Remove("west"),
            Add("west"),
            Sync("east", "west"),
            Fold("east"),
        ],
    },
    Classic {
        name: "written by turns",
        about: "Two replicas write by turns and exchange each time: clocks that forget a writer count wrongly.",
        acts: &[
            Add("east"),
            Sync("east", "west"),
            Other("west"),
            Sync("east", "west"),
            Add("east"),
            Sync("east", "west"),
            Remove("west"),
            Sync("east", "west"),
            Add("west"),
        ],
    },
];

impl Classic {
    /// Whether something is removed in it.
    fn removes(&self) -> bool {
        self.acts.iter().any(|act| matches!(act, Remove(_)))
    }
}

/// Plays each of the [`CLASSICS`] with the operations of [`Intent::roles`]; without a removal those that have none. At
/// the end, and once all replicas have exchanged what they have, every reader must see what an order of the operations
/// explains, and after a fold the same bytes everywhere. Returns how many were played: none if the operations play no
/// parts.
///
/// # Errors
/// The first classic that ends otherwise.
pub fn check_classics(merge: &dyn Merge, intent: &dyn Intent) -> Result<usize, ScenarioError> {
    let Some(roles) = intent.roles() else { return Ok(0) };
    let (memoised, judge) = (Memoised::new(merge), Judge::new(intent));
    let index = |name: &str| judge.operations().iter().position(|operation| operation == name);
    // Without a removal no act asks for it.
    let names = [&roles.add, roles.remove.as_ref().unwrap_or(&roles.add), &roles.other];
    let [Some(add), Some(remove), Some(other)] =
        names.map(|name| index(name).and_then(|index| u8::try_from(index).ok()))
    else {
        let what = format!("the operations have no {roles:?}");
        return Err(ScenarioError { scenario: None, what, log: Vec::new() });
    };
    let mut played = 0;
    for classic in CLASSICS.iter().filter(|classic| roles.remove.is_some() || !classic.removes()) {
        played += 1;
        let mut stage = Stage::new(ModelCluster::new(&memoised, b"classic"), intent, &judge);
        let play = |act: &Act| match *act {
            Add(at) => stage.apply(at, add),
            Remove(at) => stage.apply(at, remove),
            Other(at) => stage.apply(at, other),
            Sync(one, other) => stage.sync(one, other),
            Fold(at) => stage.cluster.fold(at),
            Save(at) => stage.save(at),
            Restore(at) => stage.restore(at),
        };
        classic
            .acts
            .iter()
            .try_for_each(play)
            .and_then(|()| stage.finish())
            .map_err(|error| ScenarioError { scenario: Some(classic.name), ..error })?;
    }
    Ok(played)
}

/// A model cluster, and what each of its replicas has seen.
struct Stage<'a> {
    cluster: ModelCluster<'a>,
    intent: &'a dyn Intent,
    judge: &'a Judge<'a>,
    done: Vec<Done>,
    seen: [u32; REPLICAS.len()],
    disk: Option<(DiskImage, u32)>,
}

fn index(replica: &str) -> usize {
    REPLICAS.iter().position(|name| *name == replica).unwrap_or(0)
}

impl<'a> Stage<'a> {
    fn new(cluster: ModelCluster<'a>, intent: &'a dyn Intent, judge: &'a Judge<'a>) -> Self {
        Self { cluster, intent, judge, done: Vec::new(), seen: [0; REPLICAS.len()], disk: None }
    }

    fn apply(&mut self, at: &str, operation: u8) -> Result<(), ScenarioError> {
        self.cluster.apply(at, self.intent, &self.judge.operations()[usize::from(operation)])?;
        let seen = &mut self.seen[index(at)];
        self.done.push(Done { operation, seen: *seen });
        *seen |= 1 << (self.done.len() - 1);
        Ok(())
    }

    fn sync(&mut self, one: &str, other: &str) -> Result<(), ScenarioError> {
        self.cluster.sync(one, other);
        let seen = self.seen[index(one)] | self.seen[index(other)];
        self.seen[index(one)] = seen;
        self.seen[index(other)] = seen;
        Ok(())
    }

    fn save(&mut self, at: &str) -> Result<(), ScenarioError> {
        self.disk = Some((self.cluster.copy_disk(at), self.seen[index(at)]));
        Ok(())
    }

    fn restore(&mut self, at: &str) -> Result<(), ScenarioError> {
        if let Some((disk, seen)) = self.disk.take() {
            self.cluster.restore_disk(at, disk);
            self.seen[index(at)] = seen;
        }
        Ok(())
    }

    /// Asks every reader: as the replicas are, after an exchange, and after folds.
    fn finish(&mut self) -> Result<(), ScenarioError> {
        self.ask()?;
        for _ in 0..2 {
            for (one, other) in [("east", "west"), ("west", "south"), ("south", "east")] {
                self.sync(one, other)?;
            }
        }
        self.ask()?;
        let shown = self.cluster.read("east")?.value;
        for at in REPLICAS {
            self.cluster.fold(at)?;
            let after = self.cluster.read(at)?.value;
            if after != shown {
                let at = format!("a read at {at} after a fold gives other bytes than one at east before");
                return Err(self.cluster.error(at));
            }
        }
        Ok(())
    }

    fn ask(&mut self) -> Result<(), ScenarioError> {
        for (at, seen) in REPLICAS.into_iter().zip(self.seen) {
            let value = self.cluster.read(at)?.value;
            if let Some(fault) = self.judge.fault(&self.done, seen, value.as_deref()) {
                return Err(self.cluster.error(format!("a read at {at}: {fault}")));
            }
        }
        Ok(())
    }
}
