//! A store without a disk.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::Bytes;

use rejoin_core::port::{Change, Space, Store, StoreFault};

/// Rows in memory.
#[derive(Default, Debug)]
pub(crate) struct Memory(BTreeMap<(Space, Bytes), Bytes>);

impl Memory {
    /// How many objects there are.
    #[cfg(test)]
    pub(crate) fn objects(&self) -> u64 {
        self.0.keys().filter(|(space, _)| *space == Space::Objects).count() as u64
    }
}

impl Store for Memory {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, StoreFault> {
        Ok(self.0.get(&(space, Bytes::copy_from_slice(key))).cloned())
    }

    fn scan(
        &self,
        space: Space,
        from: &[u8],
        to: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ) -> Result<(), StoreFault> {
        let inside = |key: &[u8]| key >= from && to.is_none_or(|to| key < to);
        let mut rows = self.0.iter().filter(|((at, key), _)| *at == space && inside(key));
        let _ = rows.try_for_each(|((_, key), value)| visit(key, value.clone()));
        Ok(())
    }

    fn write(&mut self, change: Change) -> Result<(), StoreFault> {
        for row in change.rows {
            match row.value {
                Some(value) => self.0.insert((row.space, row.key), value),
                None => self.0.remove(&(row.space, row.key)),
            };
        }
        Ok(())
    }
}
