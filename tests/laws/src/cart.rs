//! The classic stories of a cart: what a customer must find in it, whatever the replicas went through.

use rejoin_laws::story::{Seen, Wrong};
use rejoin_laws::{Scenario, Story};
use rejoin_plugin_cart::{Cart, Session};

/// Every scenario.
pub const SCENARIOS: [Scenario; 7] = [
    Scenario { name: "both sides add", about: "Two sides add to one cart while apart: the union.", tell: both_sides_add },
    Scenario {
        name: "an old replica returns",
        about: "A replica comes back with a disk from before a removal: it stays removed.",
        tell: old_replica,
    },
    Scenario {
        name: "an old tab writes",
        about: "A client that read long ago writes its old cart with one more item: what was removed meanwhile stays removed.",
        tell: old_tab,
    },
    Scenario {
        name: "add against remove",
        about: "An add and a remove of one item at the same time: the add wins, what the remover saw goes.",
        tell: add_wins,
    },
    Scenario { name: "folds apart", about: "Two replicas fold different siblings, meet, and agree to the byte.", tell: folds_apart },
    Scenario {
        name: "a session changes sides",
        about: "A session goes on at a replica that has not got its last write: neither write is lost.",
        tell: session_changes_sides,
    },
    Scenario {
        name: "delete against add",
        about: "One side deletes the whole cart while the other adds: the cart that was not seen stays.",
        tell: delete_against_add,
    },
];

/// A session edits what it reads at a replica and writes it back.
fn edit(story: &mut Story<'_>, at: &str, who: &mut Session, name: &str, change: impl FnOnce(&mut Cart, &str)) -> Result<(), Wrong> {
    let seen = story.read(at)?;
    write_edited(story, at, who, name, &seen, change)
}

fn write_edited(
    story: &mut Story<'_>,
    at: &str,
    who: &mut Session,
    name: &str,
    seen: &Seen,
    change: impl FnOnce(&mut Cart, &str),
) -> Result<(), Wrong> {
    let value = who.edit(seen.value.as_deref(), change).map_err(|bad| story.wrong(bad.to_string()))?;
    story.write(at, name, &value, seen);
    Ok(())
}

/// The items that a read at a replica must show.
fn expect_items(story: &mut Story<'_>, at: &str, wanted: &[(&str, u64)]) -> Result<(), Wrong> {
    story.expect_that(at, &format!("{wanted:?}"), |found| {
        let cart = found.and_then(|json| Cart::parse(json).ok());
        cart.is_some_and(|cart| cart.items().into_iter().eq(wanted.iter().copied()))
    })
}

fn both_sides_add(story: &mut Story<'_>) -> Result<(), Wrong> {
    let (mut ann, mut bob) = (Session::new("ann"), Session::new("bob"));
    edit(story, "east", &mut ann, "ann", |cart, me| cart.add(me, "apples", 2))?;
    edit(story, "west", &mut bob, "bob", |cart, me| cart.add(me, "pears", 1))?;
    edit(story, "west", &mut bob, "bob", |cart, me| cart.add(me, "apples", 1))?;
    story.meet("east", "west");
    expect_items(story, "east", &[("apples", 3), ("pears", 1)])?;
    expect_items(story, "west", &[("apples", 3), ("pears", 1)])
}

fn old_replica(story: &mut Story<'_>) -> Result<(), Wrong> {
    let (mut ann, mut bob) = (Session::new("ann"), Session::new("bob"));
    edit(story, "east", &mut ann, "ann", |cart, me| cart.add(me, "apples", 2))?;
    story.meet("east", "attic");
    let disk = story.copy_disk("attic");
    edit(story, "east", &mut ann, "ann", |cart, _| cart.remove("apples"))?;
    for _ in 0..50 {
        edit(story, "east", &mut ann, "ann", |cart, me| cart.add(me, "pears", 1))?;
        edit(story, "east", &mut ann, "ann", |cart, _| cart.remove("pears"))?;
    }
    story.meet("east", "attic");
    story.fold("east")?;
    story.bring_back("attic", disk);
    // Somebody shops at the old replica before it has met anyone, and sees the apples there.
    edit(story, "attic", &mut bob, "bob", |cart, me| cart.add(me, "plums", 4))?;
    story.meet("attic", "east");
    expect_items(story, "east", &[("plums", 4)])?;
    story.fold("attic")?;
    story.meet("attic", "east");
    expect_items(story, "attic", &[("plums", 4)])
}

fn old_tab(story: &mut Story<'_>) -> Result<(), Wrong> {
    let (mut ann, mut bob) = (Session::new("ann"), Session::new("bob"));
    edit(story, "east", &mut ann, "ann", |cart, me| {
        cart.add(me, "apples", 2);
        cart.add(me, "bread", 1);
    })?;
    let tab = story.read("east")?;
    edit(story, "east", &mut ann, "ann", |cart, _| cart.remove("apples"))?;
    write_edited(story, "east", &mut bob, "bob", &tab, |cart, me| cart.add(me, "plums", 1))?;
    expect_items(story, "east", &[("bread", 1), ("plums", 1)])?;
    // The same, once the removal has long been folded away and the tab writes a second time with its old context.
    story.fold("east")?;
    write_edited(story, "east", &mut bob, "bob", &tab, |cart, me| cart.add(me, "plums", 1))?;
    expect_items(story, "east", &[("bread", 1), ("plums", 2)])
}

fn add_wins(story: &mut Story<'_>) -> Result<(), Wrong> {
    let (mut ann, mut bob) = (Session::new("ann"), Session::new("bob"));
    edit(story, "east", &mut ann, "ann", |cart, me| cart.add(me, "apples", 2))?;
    story.meet("east", "west");
    edit(story, "east", &mut ann, "ann", |cart, _| cart.remove("apples"))?;
    edit(story, "west", &mut bob, "bob", |cart, me| cart.add(me, "apples", 5))?;
    story.meet("east", "west");
    expect_items(story, "east", &[("apples", 5)])
}

fn folds_apart(story: &mut Story<'_>) -> Result<(), Wrong> {
    let [mut ann, mut bob, mut cy] = ["ann", "bob", "cy"].map(Session::new);
    edit(story, "east", &mut ann, "ann", |cart, me| cart.add(me, "apples", 1))?;
    edit(story, "west", &mut bob, "bob", |cart, me| cart.add(me, "pears", 1))?;
    edit(story, "south", &mut cy, "cy", |cart, me| cart.add(me, "plums", 1))?;
    story.meet("east", "west");
    story.meet("south", "west");
    story.fold("east")?;
    story.fold("west")?;
    edit(story, "west", &mut bob, "bob", |cart, _| cart.remove("plums"))?;
    story.meet("east", "south");
    story.meet("east", "west");
    story.meet("south", "west");
    expect_items(story, "east", &[("apples", 1), ("pears", 1)])?;
    let there = story.read("south")?.value.unwrap_or_default();
    story.expect("east", &there)?;
    story.expect("west", &there)
}

fn session_changes_sides(story: &mut Story<'_>) -> Result<(), Wrong> {
    let mut ann = Session::new("ann");
    edit(story, "east", &mut ann, "ann", |cart, me| cart.add(me, "apples", 1))?;
    edit(story, "west", &mut ann, "ann", |cart, me| cart.add(me, "pears", 1))?;
    story.meet("east", "west");
    expect_items(story, "east", &[("apples", 1), ("pears", 1)])
}

fn delete_against_add(story: &mut Story<'_>) -> Result<(), Wrong> {
    let (mut ann, mut bob) = (Session::new("ann"), Session::new("bob"));
    edit(story, "east", &mut ann, "ann", |cart, me| cart.add(me, "apples", 2))?;
    story.meet("east", "west");
    let seen = story.read("east")?;
    story.delete("east", "ann", &seen);
    story.expect_nothing("east")?;
    edit(story, "west", &mut bob, "bob", |cart, me| cart.add(me, "plums", 1))?;
    story.meet("east", "west");
    // The database knows one value only, and it is bob's: he had seen the apples. Emptying a cart keeps its clock,
    // deleting it does not.
    expect_items(story, "west", &[("apples", 2), ("plums", 1)])
}
