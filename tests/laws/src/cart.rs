//! The scenarios of a cart: the items that a customer must find, whatever happens to the replicas.

use rejoin_laws::{ModelCluster, ReadResult, Scenario, ScenarioError};
use rejoin_plugin_cart::{Cart, Session};

/// Every scenario.
pub const SCENARIOS: [Scenario; 7] = [
    Scenario {
        name: "both sides add",
        about: "Two sides add to one cart while apart: the union.",
        steps: both_sides_add,
    },
    Scenario {
        name: "an old replica returns",
        about: "A replica comes back with a disk from before a removal: it stays removed.",
        steps: old_replica,
    },
    Scenario {
        name: "an old tab writes",
        about: "A client that read long ago writes its old cart with one more item: what was removed meanwhile stays \
            removed.",
        steps: old_tab,
    },
    Scenario {
        name: "add against remove",
        about: "An add and a remove of one item at the same time: the add wins, what the remover saw goes.",
        steps: add_wins,
    },
    Scenario {
        name: "folds apart",
        about: "Two replicas fold different siblings, meet, and agree to the byte.",
        steps: folds_apart,
    },
    Scenario {
        name: "a session changes sides",
        about: "A session goes on at a replica that has not got its last write: neither write is lost.",
        steps: session_changes_sides,
    },
    Scenario {
        name: "delete against add",
        about: "One side deletes the whole cart while the other adds: the cart that was not seen stays.",
        steps: delete_against_add,
    },
];

/// A session edits what it reads at a replica and writes it back.
fn edit(
    cluster: &mut ModelCluster<'_>,
    at: &str,
    who: &mut Session,
    name: &str,
    change: impl FnOnce(&mut Cart, &str),
) -> Result<(), ScenarioError> {
    let seen = cluster.read(at)?;
    write_edited(cluster, at, who, name, &seen, change)
}

fn write_edited(
    cluster: &mut ModelCluster<'_>,
    at: &str,
    who: &mut Session,
    name: &str,
    seen: &ReadResult,
    change: impl FnOnce(&mut Cart, &str),
) -> Result<(), ScenarioError> {
    let value = who.edit(seen.value.as_deref(), change).map_err(|bad| cluster.error(bad.to_string()))?;
    cluster.write(at, name, &value, seen);
    Ok(())
}

/// The items that a read at a replica must show.
fn expect_items(cluster: &mut ModelCluster<'_>, at: &str, wanted: &[(&str, u64)]) -> Result<(), ScenarioError> {
    cluster.expect_that(at, &format!("{wanted:?}"), |found| {
        let cart = found.and_then(|json| Cart::parse(json).ok());
        cart.is_some_and(|cart| cart.items().into_iter().eq(wanted.iter().copied()))
    })
}

fn both_sides_add(cluster: &mut ModelCluster<'_>) -> Result<(), ScenarioError> {
    let (mut ann, mut bob) = (Session::new("ann"), Session::new("bob"));
    edit(cluster, "east", &mut ann, "ann", |cart, me| cart.add(me, "apples", 2))?;
    edit(cluster, "west", &mut bob, "bob", |cart, me| cart.add(me, "pears", 1))?;
    edit(cluster, "west", &mut bob, "bob", |cart, me| cart.add(me, "apples", 1))?;
    cluster.sync("east", "west");
    expect_items(cluster, "east", &[("apples", 3), ("pears", 1)])?;
    expect_items(cluster, "west", &[("apples", 3), ("pears", 1)])
}

fn old_replica(cluster: &mut ModelCluster<'_>) -> Result<(), ScenarioError> {
    let (mut ann, mut bob) = (Session::new("ann"), Session::new("bob"));
    edit(cluster, "east", &mut ann, "ann", |cart, me| cart.add(me, "apples", 2))?;
    cluster.sync("east", "attic");
    let disk = cluster.copy_disk("attic");
    edit(cluster, "east", &mut ann, "ann", |cart, _| cart.remove("apples"))?;
    for _ in 0..50 {
        edit(cluster, "east", &mut ann, "ann", |cart, me| cart.add(me, "pears", 1))?;
        edit(cluster, "east", &mut ann, "ann", |cart, _| cart.remove("pears"))?;
    }
    cluster.sync("east", "attic");
    cluster.fold("east")?;
    cluster.restore_disk("attic", disk);
    // Somebody shops at the old replica before it has met anyone, and sees the apples there.
    edit(cluster, "attic", &mut bob, "bob", |cart, me| cart.add(me, "plums", 4))?;
    cluster.sync("attic", "east");
    expect_items(cluster, "east", &[("plums", 4)])?;
    cluster.fold("attic")?;
    cluster.sync("attic", "east");
    expect_items(cluster, "attic", &[("plums", 4)])
}

fn old_tab(cluster: &mut ModelCluster<'_>) -> Result<(), ScenarioError> {
    let (mut ann, mut bob) = (Session::new("ann"), Session::new("bob"));
    edit(cluster, "east", &mut ann, "ann", |cart, me| {
        cart.add(me, "apples", 2);
        cart.add(me, "bread", 1);
    })?;
    let tab = cluster.read("east")?;
    edit(cluster, "east", &mut ann, "ann", |cart, _| cart.remove("apples"))?;
    write_edited(cluster, "east", &mut bob, "bob", &tab, |cart, me| cart.add(me, "plums", 1))?;
    expect_items(cluster, "east", &[("bread", 1), ("plums", 1)])?;
    // The same, once the removal has long been folded away and the tab writes a second time with its old context.
    cluster.fold("east")?;
    write_edited(cluster, "east", &mut bob, "bob", &tab, |cart, me| cart.add(me, "plums", 1))?;
    expect_items(cluster, "east", &[("bread", 1), ("plums", 2)])
}

fn add_wins(cluster: &mut ModelCluster<'_>) -> Result<(), ScenarioError> {
    let (mut ann, mut bob) = (Session::new("ann"), Session::new("bob"));
    edit(cluster, "east", &mut ann, "ann", |cart, me| cart.add(me, "apples", 2))?;
    cluster.sync("east", "west");
    edit(cluster, "east", &mut ann, "ann", |cart, _| cart.remove("apples"))?;
    edit(cluster, "west", &mut bob, "bob", |cart, me| cart.add(me, "apples", 5))?;
    cluster.sync("east", "west");
    expect_items(cluster, "east", &[("apples", 5)])
}

fn folds_apart(cluster: &mut ModelCluster<'_>) -> Result<(), ScenarioError> {
    let [mut ann, mut bob, mut cy] = ["ann", "bob", "cy"].map(Session::new);
    edit(cluster, "east", &mut ann, "ann", |cart, me| cart.add(me, "apples", 1))?;
    edit(cluster, "west", &mut bob, "bob", |cart, me| cart.add(me, "pears", 1))?;
    edit(cluster, "south", &mut cy, "cy", |cart, me| cart.add(me, "plums", 1))?;
    cluster.sync("east", "west");
    cluster.sync("south", "west");
    cluster.fold("east")?;
    cluster.fold("west")?;
    edit(cluster, "west", &mut bob, "bob", |cart, _| cart.remove("plums"))?;
    cluster.sync("east", "south");
    cluster.sync("east", "west");
    cluster.sync("south", "west");
    expect_items(cluster, "east", &[("apples", 1), ("pears", 1)])?;
    let there = cluster.read("south")?.value.unwrap_or_default();
    cluster.expect("east", &there)?;
    cluster.expect("west", &there)
}

fn session_changes_sides(cluster: &mut ModelCluster<'_>) -> Result<(), ScenarioError> {
    let mut ann = Session::new("ann");
    edit(cluster, "east", &mut ann, "ann", |cart, me| cart.add(me, "apples", 1))?;
    edit(cluster, "west", &mut ann, "ann", |cart, me| cart.add(me, "pears", 1))?;
    cluster.sync("east", "west");
    expect_items(cluster, "east", &[("apples", 1), ("pears", 1)])
}

fn delete_against_add(cluster: &mut ModelCluster<'_>) -> Result<(), ScenarioError> {
    let (mut ann, mut bob) = (Session::new("ann"), Session::new("bob"));
    edit(cluster, "east", &mut ann, "ann", |cart, me| cart.add(me, "apples", 2))?;
    cluster.sync("east", "west");
    let seen = cluster.read("east")?;
    cluster.delete("east", "ann", &seen);
    cluster.expect_nothing("east")?;
    edit(cluster, "west", &mut bob, "bob", |cart, me| cart.add(me, "plums", 1))?;
    cluster.sync("east", "west");
    // The database knows one value only, and it is bob's: he had seen the apples. Emptying a cart keeps its clock,
    // deleting it does not.
    expect_items(cluster, "west", &[("apples", 2), ("plums", 1)])
}
