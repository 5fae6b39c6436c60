//! The orders in which operations may have happened, and what a reader may see after one of them.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use crate::history::intent::{Facts, Intent};

/// An operation that was carried out: its index in the vocabulary, and the earlier ones that its client had seen, a bit
/// for each.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Done {
    pub(crate) operation: u8,
    pub(crate) seen: u32,
}

/// The contents that each name may have; `None` is absent.
type Allowed = BTreeMap<String, BTreeSet<Option<String>>>;

/// Compares what readers see with a specification, and remembers what it allows.
pub(crate) struct Judge<'a> {
    intent: &'a dyn Intent,
    operations: Vec<String>,
    allowed: RefCell<HashMap<Vec<Done>, Rc<Allowed>>>,
}

impl<'a> Judge<'a> {
    pub(crate) fn new(intent: &'a dyn Intent) -> Self {
        Self { intent, operations: intent.operations(), allowed: RefCell::default() }
    }

    pub(crate) fn operations(&self) -> &[String] {
        &self.operations
    }

    /// What is wrong with a value that a reader is shown after the operations whose bits are in `visible`.
    pub(crate) fn fault(&self, done: &[Done], visible: u32, value: Option<&[u8]>) -> Option<String> {
        let facts = match value.map(|value| self.intent.facts(value)) {
            None => Facts::new(),
            Some(Ok(facts)) => facts,
            Some(Err(why)) => return Some(format!("the value cannot be read: {why}")),
        };
        let allowed = self.allowed(&within(done, visible));
        let names: BTreeSet<&String> = facts.keys().chain(allowed.keys()).collect();
        let absent = BTreeSet::from([None]);
        names.into_iter().find_map(|name| {
            let (found, may) = (facts.get(name), allowed.get(name).unwrap_or(&absent));
            (!may.contains(&found.cloned())).then(|| {
                let shown =
                    |content: &Option<String>| content.as_ref().map_or("absent".into(), |text| format!("{text:?}"));
                let may: Vec<String> = may.iter().map(shown).collect();
                let name = if name.is_empty() { "the content" } else { name };
                format!("{name} is {}, and should be {}", shown(&found.cloned()), may.join(" or "))
            })
        })
    }

    fn allowed(&self, done: &[Done]) -> Rc<Allowed> {
        if let Some(known) = self.allowed.borrow().get(done) {
            return Rc::clone(known);
        }
        let mut outcomes: Vec<Facts> = Vec::new();
        self.orders(done, &mut Vec::new(), &mut outcomes);
        let mut allowed = Allowed::new();
        let names: BTreeSet<&String> = outcomes.iter().flat_map(Facts::keys).collect();
        for name in names {
            allowed.insert(name.clone(), outcomes.iter().map(|facts| facts.get(name).cloned()).collect());
        }
        let allowed = Rc::new(allowed);
        self.allowed.borrow_mut().insert(done.to_vec(), Rc::clone(&allowed));
        allowed
    }

    /// Every order that keeps the order of operations that saw each other.
    fn orders(&self, done: &[Done], order: &mut Vec<usize>, outcomes: &mut Vec<Facts>) {
        if order.len() == done.len() {
            let names: Vec<&str> =
                order.iter().map(|index| self.operations[usize::from(done[*index].operation)].as_str()).collect();
            outcomes.push(self.intent.specification(&names));
            return;
        }
        let taken = order.iter().fold(0_u32, |bits, index| bits | 1 << index);
        for (index, one) in done.iter().enumerate() {
            if taken & (1 << index) == 0 && one.seen & !taken == 0 {
                order.push(index);
                self.orders(done, order, outcomes);
                order.pop();
            }
        }
    }
}

/// The visible operations alone, with the bits of what they have seen moved accordingly.
fn within(done: &[Done], visible: u32) -> Vec<Done> {
    let indices: Vec<usize> = (0..done.len()).filter(|index| visible & (1 << index) != 0).collect();
    let moved = |seen: u32| {
        indices.iter().enumerate().filter(|(_, old)| seen & (1 << **old) != 0).fold(0, |bits, (new, _)| bits | 1 << new)
    };
    indices.iter().map(|index| Done { seen: moved(done[*index].seen), ..done[*index] }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::intent::OperationDot;

    /// The last operation is the content.
    struct Last;

    impl Intent for Last {
        fn operations(&self) -> Vec<String> {
            ["a", "b", "c"].map(String::from).to_vec()
        }

        fn apply(&self, _state: Option<&[u8]>, operation: &str, _dot: OperationDot) -> Result<Vec<u8>, String> {
            Ok(operation.into())
        }

        fn facts(&self, value: &[u8]) -> Result<Facts, String> {
            Ok([(String::new(), String::from_utf8_lossy(value).into_owned())].into())
        }

        fn specification(&self, operations: &[&str]) -> Facts {
            operations.last().map(|last| (String::new(), (*last).to_owned())).into_iter().collect()
        }
    }

    #[test]
    fn only_operations_that_nobody_has_seen_may_be_the_last() {
        let judge = Judge::new(&Last);
        // b has seen a; c has seen neither.
        let done = [Done { operation: 0, seen: 0 }, Done { operation: 1, seen: 1 }, Done { operation: 2, seen: 0 }];
        assert_eq!(judge.fault(&done, 7, Some(b"b")), None);
        assert_eq!(judge.fault(&done, 7, Some(b"c")), None);
        let fault = judge.fault(&done, 7, Some(b"a")).expect("a was overwritten");
        assert_eq!(fault, r#"the content is "a", and should be "b" or "c""#);
        assert_eq!(judge.fault(&done, 0b101, Some(b"a")), None, "b is not visible there");
        assert!(judge.fault(&done, 7, None).is_some_and(|fault| fault.contains("is absent")));
        assert_eq!(judge.fault(&done, 0, None), None);
    }
}
