//! Intents that are data: edits of names, and one of a few well-known specifications.

use std::collections::BTreeMap;

use crate::history::intent::{Facts, Roles};

/// A well-known data type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Specification {
    /// Names that are there or not.
    Set,
    /// A number for each name: adds are counted, a removal ends the count.
    Counts,
    /// A content for each name: the last one that was set.
    Map,
    /// A number for each name: the largest one that was set.
    Maximum,
}

/// One edit.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Edit {
    /// Adds a name, or an amount to it.
    Add {
        /// The name.
        name: String,
        /// How many; a set has a name once.
        amount: u64,
    },
    /// Removes a name.
    Remove {
        /// The name.
        name: String,
    },
    /// Gives a name a content.
    Set {
        /// The name; empty for a value that is one content.
        name: String,
        /// The content; a number for a maximum.
        to: String,
    },
}

impl Edit {
    fn name(&self) -> &str {
        match self {
            Self::Add { name, .. } | Self::Remove { name } | Self::Set { name, .. } => name,
        }
    }
}

/// A specification and the edits of its histories, by the name of the operation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeclaredIntent {
    /// What the edits mean.
    pub specification: Specification,
    /// The edits.
    pub edits: BTreeMap<String, Edit>,
}

impl DeclaredIntent {
    /// The names of the operations.
    #[must_use]
    pub fn operations(&self) -> Vec<String> {
        self.edits.keys().cloned().collect()
    }

    /// What a reader must see after these operations, one after the other.
    #[must_use]
    pub fn after(&self, operations: &[&str]) -> Facts {
        let mut facts = Facts::new();
        for edit in operations.iter().filter_map(|operation| self.edits.get(*operation)) {
            self.edit(&mut facts, edit);
        }
        facts
    }

    /// Changes facts as the edit says.
    pub fn edit(&self, facts: &mut Facts, edit: &Edit) {
        let number = |facts: &Facts, name: &str| facts.get(name).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        let new = match (self.specification, edit) {
            (_, Edit::Remove { name }) => {
                facts.remove(name);
                return;
            }
            (Specification::Counts, Edit::Add { name, amount }) => {
                number(facts, name).saturating_add(*amount).to_string()
            }
            (Specification::Maximum, Edit::Set { name, to }) => {
                number(facts, name).max(to.parse().unwrap_or(0)).to_string()
            }
            (Specification::Maximum, Edit::Add { name, amount }) => number(facts, name).max(*amount).to_string(),
            (_, Edit::Set { to, .. }) => to.clone(),
            (_, Edit::Add { .. }) => String::new(),
        };
        facts.insert(edit.name().to_owned(), new);
    }

    /// The parts that the edits can play: an edit, the removal of its name if there is one, and an edit of another
    /// name, or else another one of the same. `None` if there are no two edits.
    #[must_use]
    pub fn roles(&self) -> Option<Roles> {
        let is_removal = |edit: &Edit| matches!(edit, Edit::Remove { .. });
        let writes = || self.edits.iter().filter(|(_, edit)| !is_removal(edit));
        let removal_of = |name: &str| self.edits.iter().find(|(_, edit)| is_removal(edit) && edit.name() == name);
        let (add, edit) = writes().find(|(_, edit)| removal_of(edit.name()).is_some()).or_else(|| writes().next())?;
        let other = writes().find(|(_, other)| other.name() != edit.name());
        let (other, _) = other.or_else(|| writes().find(|(operation, _)| *operation != add))?;
        let remove = removal_of(edit.name()).map(|(operation, _)| operation.clone());
        Some(Roles { add: add.clone(), remove, other: other.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(name: &str, amount: u64) -> Edit {
        Edit::Add { name: name.into(), amount }
    }

    fn set(name: &str, to: &str) -> Edit {
        Edit::Set { name: name.into(), to: to.into() }
    }

    fn intent(specification: Specification) -> DeclaredIntent {
        let edits = [
            ("add x", add("x", 2)),
            ("remove x", Edit::Remove { name: "x".into() }),
            ("set x", set("x", "7")),
            ("set x low", set("x", "3")),
            ("add y", add("y", 1)),
        ];
        DeclaredIntent { specification, edits: edits.map(|(name, edit)| (name.to_owned(), edit)).into() }
    }

    fn facts(all: &[(&str, &str)]) -> Facts {
        all.iter().map(|(name, content)| ((*name).to_owned(), (*content).to_owned())).collect()
    }

    #[test]
    fn each_specification_gives_its_facts() {
        let after = |specification, operations: &[&str]| intent(specification).after(operations);
        assert_eq!(after(Specification::Set, &["add x", "add y", "remove x"]), facts(&[("y", "")]));
        assert_eq!(after(Specification::Counts, &["add x", "add x", "add y"]), facts(&[("x", "4"), ("y", "1")]));
        assert_eq!(after(Specification::Counts, &["add x", "remove x", "add x"]), facts(&[("x", "2")]));
        assert_eq!(after(Specification::Map, &["set x", "set x low"]), facts(&[("x", "3")]));
        assert_eq!(after(Specification::Maximum, &["set x", "set x low"]), facts(&[("x", "7")]));
    }

    #[test]
    fn the_edits_play_their_parts() {
        let roles = intent(Specification::Set).roles().expect("there is a removal");
        assert_eq!((&*roles.add, roles.remove.as_deref(), &*roles.other), ("add x", Some("remove x"), "add y"));
        let mut adds =
            DeclaredIntent { specification: Specification::Maximum, edits: [("5".to_owned(), set("", "5"))].into() };
        assert_eq!(adds.roles(), None, "there is no other one");
        adds.edits.insert("7".into(), set("", "7"));
        assert_eq!(adds.roles(), Some(Roles { add: "5".into(), remove: None, other: "7".into() }));
    }
}
