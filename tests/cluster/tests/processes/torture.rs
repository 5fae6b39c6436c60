//! Nodes that are killed under load: what was acknowledged is kept, on every owner, and nothing is there that nobody
//! wrote.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rejoin_client::{Bucket, Bytes, Client, ErrorKind, Result};
use rejoin_plugin_cart::{Cart, Session};
use rejoin_test_cluster::{Cluster, eventually, within};

const NODES: usize = 3;
const KILLS: usize = 10;
const WRITERS: usize = 4;
const SETS: usize = 12;
/// Acknowledgements that must come while a node is down, and again once it is back.
const PROGRESS: usize = 12;

/// What became of each element, by key.
#[derive(Default)]
struct Record {
    acknowledged: BTreeMap<String, BTreeSet<String>>,
    /// Refused before anything was written.
    failed: BTreeMap<String, BTreeSet<String>>,
    unknown: BTreeMap<String, BTreeSet<String>>,
}

impl Record {
    fn add(&mut self, key: &str, element: &str, outcome: Result<()>) {
        let of = match outcome {
            Ok(()) => &mut self.acknowledged,
            Err(error) if error.kind() == ErrorKind::Unavailable || error.kind() == ErrorKind::Overloaded => {
                &mut self.failed
            }
            Err(_) => &mut self.unknown,
        };
        of.entry(key.to_owned()).or_default().insert(element.to_owned());
    }

    fn absorb(&mut self, other: Self) {
        let pairs = [
            (&mut self.acknowledged, other.acknowledged),
            (&mut self.failed, other.failed),
            (&mut self.unknown, other.unknown),
        ];
        for (mine, theirs) in pairs {
            theirs.into_iter().for_each(|(key, elements)| mine.entry(key).or_default().extend(elements));
        }
    }

    /// What a set may hold besides what was acknowledged.
    fn may_be_there(&self, key: &str) -> BTreeSet<String> {
        [&self.acknowledged, &self.unknown].into_iter().filter_map(|of| of.get(key)).flatten().cloned().collect()
    }
}

/// Writes unique elements until told to stop: by turns into what it has read, and blindly, as a set of its own beside
/// all others.
///
/// Every element has a session of its own. A session brings back what it knows, and would hide a lost element with its
/// next write.
async fn write(number: usize, client: Client, acknowledged: Arc<AtomicUsize>, stop: Arc<AtomicBool>) -> Record {
    let sets = client.bucket::<Bytes>("cart").unwrap();
    let mut record = Record::default();
    for turn in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let (key, element) = (format!("set{}", (number + turn) % SETS), format!("e{number}-{turn}"));
        let outcome = if turn % 2 == 0 {
            into_what_is_there(&sets, &key, &element).await
        } else {
            beside(&sets, &key, &element).await
        };
        if outcome.is_ok() {
            acknowledged.fetch_add(1, Ordering::Relaxed);
        }
        record.add(&key, &element, outcome);
    }
    record
}

async fn into_what_is_there(sets: &Bucket<Bytes>, key: &str, element: &str) -> Result<()> {
    let add = |old: Option<Vec<u8>>| with(old.as_deref(), element);
    sets.update(key, add).await.map(|_| ())
}

async fn beside(sets: &Bucket<Bytes>, key: &str, element: &str) -> Result<()> {
    sets.put(key, with(None, element)).blind().await.map(|_| ())
}

fn with(old: Option<&[u8]>, element: &str) -> Vec<u8> {
    Session::new(element).edit(old, |set, me| set.add(me, element, 1)).expect("only sets are stored")
}

fn elements(value: Option<&[u8]>) -> BTreeSet<String> {
    let set = value.map_or_else(Cart::default, |value| Cart::parse(value).unwrap());
    set.items().into_keys().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_kills_lose_no_acknowledged_element_on_any_owner() {
    let mut cluster = Cluster::start(NODES).await;
    cluster.cart().await;
    let (acknowledged, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let mut writers = Vec::new();
    for number in 0..WRITERS {
        let profile = rejoin_client::Profile::load(cluster.files.profile()).unwrap();
        let client = profile.builder().timeout(Duration::from_millis(1500)).connect().await.unwrap();
        writers.push(tokio::spawn(write(number, client, acknowledged.clone(), stop.clone())));
    }
    let progress = async |when: &str| {
        let enough = acknowledged.load(Ordering::Relaxed) + PROGRESS;
        within(Duration::from_secs(15), when, async || {
            Some(acknowledged.load(Ordering::Relaxed)).filter(|&now| now < enough).map_or(Ok(()), Err)
        })
        .await;
    };
    progress("writes are acknowledged at first").await;
    for kill in 0..KILLS {
        cluster.kill(kill % NODES);
        progress("writes are acknowledged with a node down").await;
        cluster.spawn(kill % NODES);
        drop(cluster.pinned(kill % NODES).await);
        progress("writes are acknowledged with the node back").await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut record = Record::default();
    for writer in writers {
        record.absorb(writer.await.unwrap());
    }
    cluster.together().await;
    assert_kept(&cluster, &record).await;
}

async fn assert_kept(cluster: &Cluster, record: &Record) {
    assert_eq!(record.acknowledged.len(), SETS, "every set was written to");
    let sets = cluster.client().await.bucket::<Bytes>("cart").unwrap();
    for key in record.acknowledged.keys() {
        // The one read that repairs. It may be repeated only if it was not answered.
        let object = eventually("three replicas answer", async || sets.get(key).r(3).await).await;
        assert_eq!(object.answered.len(), 3);
        assert_is_between(record, key, &elements(object.into_value().unwrap().as_deref()), "r = 3");
    }
    for index in 0..NODES {
        let node = cluster.files.nodes[index].0.as_str();
        let sets = cluster.pinned(index).await.bucket::<Bytes>("cart").unwrap();
        for (key, wanted) in &record.acknowledged {
            let found = eventually("the repair reaches every owner", async || {
                let object = sets.get(key).r(1).await.map_err(|error| error.to_string())?;
                assert_eq!(object.answered, [node], "its own copy was asked for");
                let found = elements(object.into_value().map_err(|error| error.to_string())?.as_deref());
                if found.is_superset(wanted) {
                    Ok(found)
                } else {
                    Err(format!("{node} lacks {:?} of {key}", wanted - &found))
                }
            });
            assert_is_between(record, key, &found.await, node);
        }
    }
}

/// Everything acknowledged is there, and nothing that was refused or never written.
fn assert_is_between(record: &Record, key: &str, found: &BTreeSet<String>, who: &str) {
    let lost = &record.acknowledged[key] - found;
    assert!(lost.is_empty(), "{who} has lost {lost:?} of {key}");
    let invented = found - &record.may_be_there(key);
    let refused: Vec<_> =
        record.failed.get(key).into_iter().flatten().filter(|element| invented.contains(*element)).collect();
    assert!(
        invented.is_empty(),
        "{who} has {invented:?} in {key}, which was refused or never written (refused: {refused:?})"
    );
}
