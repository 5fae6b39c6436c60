//! A model of what the store promises: every change in order, the last one that others may know of, and the last one
//! that was acknowledged as durable. It shares no code with the store.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use rejoin_core::port::{Row, Space};

/// The rows of both spaces.
pub type Rows = BTreeMap<(Space, Bytes), Bytes>;

/// All values of a row, each with the number of the change that wrote it.
type Past = Vec<(u64, Option<Bytes>)>;

/// The changes of one shard. The first has the number 1.
#[derive(Clone, Default, Debug)]
pub struct Model {
    changes: Vec<Vec<Row>>,
    past: BTreeMap<(Space, Bytes), Past>,
    /// All values that were ever written, also by changes that are gone.
    tried: BTreeSet<(Space, Bytes, Bytes)>,
    /// The last change for which a commit has returned: others may know of it.
    heard: u64,
    /// The last change for which a sync has returned: it was acknowledged as durable.
    synced: u64,
    /// The last change that was synced before the last sync began.
    confirmed: u64,
    /// A change that others know of is gone, and new actors are not durable yet.
    owed: bool,
}

impl Model {
    /// A change is made.
    pub fn write(&mut self, rows: Vec<Row>) {
        let number = self.changes.len() as u64 + 1;
        for row in &rows {
            self.tried.extend(row.value.clone().map(|value| (row.space, row.key.clone(), value)));
            self.past.entry((row.space, row.key.clone())).or_default().push((number, row.value.clone()));
        }
        self.changes.push(rows);
    }

    /// A commit has returned this number.
    pub fn commit(&mut self, number: u64) {
        assert_eq!(number, self.made(), "a commit counts every change");
        self.heard = number;
    }

    /// A sync has returned this number.
    pub fn sync(&mut self, number: u64) {
        assert!(
            number <= self.heard && number >= self.synced,
            "{number}: a sync covers what was committed, and takes nothing back"
        );
        if number > self.synced {
            self.confirmed = self.synced;
        }
        self.synced = number;
    }

    /// The store was opened and has the changes up to this number, durably. Later ones are gone.
    pub fn reopen(&mut self, number: u64) {
        self.forget_behind(number);
        self.owed |= number < self.heard;
        (self.heard, self.synced, self.confirmed) = (number, number, number);
    }

    /// New actors are durable, if any were owed.
    pub fn settle(&mut self) {
        self.owed = false;
    }

    /// Whether a start that finds the changes up to this number must call for new actors.
    #[must_use]
    pub fn owes_actors(&self, found: u64) -> bool {
        self.owed || found < self.heard
    }

    /// The process ends: what was not committed is gone with it.
    pub fn kill(&mut self) {
        self.forget_behind(self.heard);
    }

    /// The number of changes.
    #[must_use]
    pub fn made(&self) -> u64 {
        self.changes.len() as u64
    }

    /// The last change that others may know of.
    #[must_use]
    pub fn heard(&self) -> u64 {
        self.heard
    }

    /// The last change that was acknowledged as durable.
    #[must_use]
    pub fn synced(&self) -> u64 {
        self.synced
    }

    /// The last change that was synced before the last sync began. If the disk lies about the last sync alone, that
    /// looks like a power cut during it.
    #[must_use]
    pub fn confirmed(&self) -> u64 {
        self.confirmed
    }

    /// All keys that were ever written.
    pub fn keys(&self) -> impl Iterator<Item = &(Space, Bytes)> {
        self.past.keys()
    }

    /// The rows after a change.
    #[must_use]
    pub fn rows_after(&self, number: u64) -> Rows {
        let value = |past: &Past| {
            past[..past.partition_point(|(when, _)| *when <= number)].last().and_then(|(_, value)| value.clone())
        };
        self.past.iter().filter_map(|(key, past)| Some((key.clone(), value(past)?))).collect()
    }

    /// The first difference between these rows and those after a change.
    #[must_use]
    pub fn difference(&self, rows: &Rows, number: u64) -> Option<String> {
        let expected = self.rows_after(number);
        let wrong = expected.iter().find(|(key, value)| rows.get(*key) != Some(value));
        let wrong = wrong.or_else(|| rows.iter().find(|(key, _)| !expected.contains_key(*key)))?.0;
        let show = |rows: &Rows| {
            rows.get(wrong).map_or("nothing".to_owned(), |value| {
                String::from_utf8_lossy(&value[..value.len().min(24)]).into_owned()
            })
        };
        Some(format!(
            "{:?} {} is {}, and was {} after change {number}",
            wrong.0,
            String::from_utf8_lossy(&wrong.1),
            show(rows),
            show(&expected)
        ))
    }

    /// A row whose value was never written.
    #[must_use]
    pub fn never_written(&self, rows: &Rows) -> Option<String> {
        let written = |((space, key), value): &(&(Space, Bytes), &Bytes)| {
            self.tried.contains(&(*space, key.clone(), (*value).clone()))
        };
        let (key, _) = rows.iter().find(|row| !written(row))?;
        Some(format!("{:?} {} has a value that was never written", key.0, String::from_utf8_lossy(&key.1)))
    }

    /// A row that is older than it was after a change.
    #[must_use]
    pub fn older(&self, rows: &Rows, number: u64) -> Option<String> {
        let expected = self.rows_after(number);
        let fresh = |(key, past): &(&(Space, Bytes), &Past)| {
            let found = rows.get(*key);
            found == expected.get(*key) || past.iter().any(|(when, value)| *when > number && value.as_ref() == found)
        };
        let (key, _) = self.past.iter().find(|row| !fresh(row))?;
        Some(format!("{:?} {} is older than after change {number}", key.0, String::from_utf8_lossy(&key.1)))
    }

    fn forget_behind(&mut self, number: u64) {
        self.changes.truncate(number as usize);
        self.past.values_mut().for_each(|past| past.truncate(past.partition_point(|(when, _)| *when <= number)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rejoin_core::port::Change;

    #[test]
    fn the_model_knows_every_past_and_forgets_what_never_was() {
        let mut model = Model::default();
        let key = |key: &'static str| (Space::Objects, Bytes::from_static(key.as_bytes()));
        for (number, value) in ["one", "two", "three"].into_iter().enumerate() {
            let mut change = Change::default();
            change.put(Space::Objects, "a", value).remove(Space::Objects, "b").put(Space::Objects, "c", "same");
            model.write(change.rows);
            model.commit(number as u64 + 1);
        }
        let after = |number, value: &'static str| {
            let rows = model.rows_after(number);
            assert_eq!(rows, Rows::from([(key("a"), Bytes::from(value)), (key("c"), Bytes::from("same"))]));
            assert_eq!(model.difference(&rows, number), None);
            assert!(model.difference(&rows, 3 - number).is_some() && model.difference(&Rows::new(), number).is_some());
        };
        after(1, "one");
        after(2, "two");
        let (old, never) = (Rows::from([(key("a"), Bytes::from("one"))]), Rows::from([(key("b"), Bytes::from("one"))]));
        assert!(model.never_written(&old).is_none() && model.never_written(&never).is_some());
        model.reopen(2);
        assert_eq!((model.made(), model.heard(), model.synced()), (2, 2, 2));
        let gone = Rows::from([(key("a"), Bytes::from("three"))]);
        assert!(
            model.never_written(&gone).is_none()
                && model.older(&gone, 2).is_some()
                && model.difference(&gone, 2).is_some()
        );
    }
}
