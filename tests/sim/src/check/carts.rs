//! Checker 11: an acknowledged add that no observing remove covered is in the cart, and nothing is that nobody added.
//!
//! As for sets, but what the owners hold is read as carts are merged: an add that a cart's clock covers and its items
//! lack was removed.

use super::Finding;
use super::index::Index;
use super::survival::ends_as_written;
use crate::history::{KeyId, Kind};

/// Its name in findings.
pub const NAME: &str = "carts";

pub(super) fn check(index: &Index<'_>, findings: &mut Vec<Finding>) {
    for (key, by_key) in index.keys.iter().enumerate() {
        if index.kind(key as KeyId) == Kind::Cart {
            ends_as_written(index, NAME, key as KeyId, by_key, findings);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::story::Story;
    use super::*;
    use crate::history::{Basis, Element};

    /// Two add at the same time, one of them removes what it saw.
    fn shopping() -> (Story, [Element; 2]) {
        let mut story = Story::new(Kind::Cart);
        let (_, milk) = story.add(0, Basis::Blind, &[]);
        story.settle();
        let read = story.get(0);
        let (_, bread) = story.add(1, Basis::After(read), &[milk]);
        story.write(2, Basis::After(read), &[], None, &[milk]);
        story.settle();
        (story, [milk, bread])
    }

    #[test]
    fn a_removed_item_is_gone_though_a_concurrent_cart_still_has_it() {
        let (mut story, [_, bread]) = shopping();
        let read = story.get(1);
        assert_eq!(story.shown(read), [bread]);
        story.end();
        assert_eq!(story.findings(check), [""; 0]);
    }

    #[test]
    fn an_add_that_nobody_removed_must_be_in_the_cart() {
        let (mut story, [_, bread]) = shopping();
        for replica in &mut story.replicas {
            replica.entries.retain(|entry| !format!("{:?}", entry.content).contains(&Story::tag(bread)));
        }
        story.end();
        assert!(story.findings(check)[0].contains("is not at owner 0"));
    }

    #[test]
    fn an_add_that_nobody_made_must_not() {
        let (mut story, [milk, bread]) = shopping();
        let strange = Element::new(99, 1);
        let call = story.write(0, Basis::Blind, &[milk, bread, strange], Some(strange), &[]);
        story.refuse(call);
        story.settle();
        story.end();
        assert!(
            story.findings(check).iter().any(|found| found.contains("which no write")),
            "refused, and there all the same"
        );
    }
}
