//! The merges of a check give the same bytes in a second engine.

use rejoin_laws::{Merge, MergeResult, Sampler, Sibling};
use rejoin_test_hostile::lawless;
use rejoin_test_laws::component;
use rejoin_test_laws::second_engine::{Answer, SecondEngine, compare};

#[test]
fn ten_thousand_merges_are_equal_in_both_engines() {
    let mut all = 0;
    for (plugin, merges) in [("highest", 5_000), ("session", 2_500), ("cart", 2_500)] {
        let bytes = component::built(plugin);
        let (compared, differs) = compare(&bytes, &component::on_a_host(&bytes), 1, merges);
        assert!(differs.is_none(), "{plugin}: {differs:?}");
        all += compared;
    }
    assert!(all >= 10_000, "{all}");
}

#[test]
fn traps_and_refusals_are_equal_as_well() {
    for (name, bytes) in [("a trap", lawless::trapping()), ("a refusal", lawless::refusing())] {
        let under_test = component::on_a_host(&bytes);
        let (compared, differs) = compare(&bytes, &under_test, 7, 300);
        assert!(compared >= 300 && differs.is_none(), "{name}: {differs:?}");
    }
    let siblings = [b"1", b"2"].map(|value| Sibling { value: value.to_vec(), stamp_ms: 1, writer: 1 });
    assert_eq!(SecondEngine::load(&lawless::refusing()).merge(b"k", &siblings), Answer::Refused);
}

/// A merge of which one result in a hundred is another one than the component's.
struct Wrong<'a, M>(&'a M, std::cell::Cell<u32>);

impl<M: Merge> Merge for Wrong<'_, M> {
    fn merge(&self, key: &[u8], siblings: &[Sibling]) -> MergeResult {
        self.1.set(self.1.get() + 1);
        let value = self.0.merge(key, siblings)?;
        Ok(if self.1.get().is_multiple_of(100) { [value, b" ".to_vec()].concat() } else { value })
    }
}

impl<M: Sampler> Sampler for Wrong<'_, M> {
    fn sample(&self, seed: u64, size: u32) -> Result<Vec<u8>, String> {
        self.0.sample(seed, size)
    }
}

#[test]
fn a_result_that_differs_is_found() {
    let bytes = component::built("highest");
    let under_test = component::on_a_host(&bytes);
    let (_, differs) = compare(&bytes, &Wrong(&under_test, std::cell::Cell::new(0)), 1, 1_000);
    assert!(differs.is_some());
}
