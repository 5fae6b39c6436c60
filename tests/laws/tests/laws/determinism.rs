//! Equal inputs give equal bytes and equal fuel: in every call, on every thread, on another host, through the memo.

use std::sync::mpsc::channel;

use rejoin_laws::{Case, Rng};
use rejoin_merge::{
    ArtefactCache, CallLimits, CompileQueue, Compiler, Host, HostConfig, Memo, MergeFault, Merged, ModuleLimits,
    Plugin, PluginCall, Pool, PoolConfig, Sibling, TenantShare,
};
use rejoin_plugin_cart::Cart;
use rejoin_test_laws::component;

type Outcome = Result<Merged, MergeFault>;

fn cases_of_carts() -> Vec<Vec<Sibling>> {
    let cart = component::cart();
    let mut rng = Rng::new(11);
    let lend =
        |one: rejoin_laws::Sibling| Sibling { value: one.value.into(), stamp_ms: one.stamp_ms, writer: one.writer };
    let draws =
        std::iter::repeat_with(|| Case::draw(&mut rng, 20, true).build(cart, cart).expect("the sampler draws carts"));
    draws.filter(|trial| trial.valid).take(40).map(|trial| trial.siblings.into_iter().map(lend).collect()).collect()
}

fn all(host: &Host, plugin: &Plugin, cases: &[Vec<Sibling>]) -> Vec<Outcome> {
    cases.iter().map(|siblings| host.merge(plugin, b"k", siblings, &CallLimits::default())).collect()
}

#[test]
fn calls_and_threads_agree_on_bytes_and_fuel() {
    let (cart, cases) = (component::cart(), cases_of_carts());
    let first = all(&cart.host, &cart.plugin, &cases);
    assert!(first.iter().all(|outcome| outcome.as_ref().is_ok_and(|merged| merged.fuel_used > 1_000)));
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| (0..3).map(|_| all(&cart.host, &cart.plugin, &cases)).collect::<Vec<_>>()))
            .collect();
        for thread in threads {
            for again in thread.join().expect("a thread that only merges") {
                assert_eq!(again, first);
            }
        }
    });
}

#[test]
fn another_host_agrees() {
    let (cart, cases) = (component::cart(), cases_of_carts());
    let other = Host::new(HostConfig { instances: 2, max_memory_bytes: 64 << 20 }).expect("a host");
    let plugin = other.compile(component::cart_bytes(), &ModuleLimits::default()).expect("the cart");
    assert_eq!(other.profile(), cart.host.profile(), "room for instances is no part of the profile");
    assert_eq!(plugin.digest(), cart.plugin.digest());
    assert_eq!(all(&other, &plugin, &cases), all(&cart.host, &cart.plugin, &cases));
}

#[test]
fn the_pool_and_the_memo_agree_with_the_host() {
    let (cart, cases) = (component::cart(), cases_of_carts());
    let expected = all(&cart.host, &cart.plugin, &cases);
    let threads = Pool::new(
        cart.host.clone(),
        Memo::new(1 << 20),
        PoolConfig {
            threads: 3,
            queue: 1_000,
            tenant_threads: 3,
            tenant_queue: 1_000,
            bucket_threads: 3,
            bucket_queue: 1_000,
        },
    )
    .expect("three threads");
    let inline = Pool::inline(cart.host.clone(), Memo::new(1 << 20));
    for pool in [threads, inline] {
        for round in 0..2 {
            let (send, receive) = channel();
            for (number, siblings) in cases.iter().enumerate() {
                let send = send.clone();
                let done = move |outcome| send.send((number, outcome)).expect("the test waits");
                let (tenant, limits) = (TenantShare::default(), CallLimits::default());
                let call = PluginCall { bucket: 1, tenant, plugin: cart.plugin.clone(), limits, fresh: false };
                pool.merge(call, "k".into(), siblings.clone(), || true, done).expect("room for all");
            }
            drop(send);
            let mut found: Vec<(usize, Outcome)> = receive.iter().collect();
            found.sort_by_key(|(number, _)| *number);
            for ((number, outcome), expected) in found.iter().zip(&expected) {
                let values = [outcome, expected].map(|outcome| outcome.as_ref().map(|merged| &merged.value));
                assert_eq!(values[0], values[1], "case {number}, round {round}");
                // What is remembered was paid for.
                let fuel = outcome.as_ref().map_or(0, |merged| merged.fuel_used);
                assert!(round == 0 || fuel == 0, "case {number}: {fuel}");
            }
            assert_eq!(found.len(), expected.len());
        }
        let (hits, _) = pool.memo().hits_and_misses();
        assert!(hits >= cases.len() as u64, "the second round is remembered");
    }
}

#[test]
fn too_little_fuel_is_too_little_everywhere() {
    let (cart, cases) = (component::cart(), cases_of_carts());
    let merged = cart.host.merge(&cart.plugin, b"k", &cases[0], &CallLimits::default()).expect("carts");
    let with = |fuel| cart.host.merge(&cart.plugin, b"k", &cases[0], &CallLimits { fuel, ..CallLimits::default() });
    // The last few units are only looked at where the engine looks, so the exact edge is not asked for.
    assert_eq!(with(merged.fuel_used + 1), Ok(merged.clone()));
    assert_eq!(with(merged.fuel_used / 2), Err(MergeFault::OutOfFuel { limit: merged.fuel_used / 2 }));
}

#[test]
fn a_cart_as_large_as_a_bucket_takes_fits_the_default_limits() {
    let cart = component::cart();
    let shop = |writer: &str| {
        let mut large = Cart::default();
        for number in 0..18_000 {
            large.add(writer, &format!("item {number:05}"), 1);
        }
        Sibling { value: large.to_json().into(), stamp_ms: 1, writer: 1 }
    };
    let siblings = [shop("ann"), shop("bob")];
    let merged = cart.host.merge(&cart.plugin, b"k", &siblings, &CallLimits::default()).expect("it fits");
    assert!(merged.value.len() > 700_000, "only {} bytes", merged.value.len());
    assert!(merged.fuel_used < CallLimits::default().fuel / 4, "{} fuel is too near the limit", merged.fuel_used);
}

#[test]
fn carts_at_the_byte_limit_of_an_object_fit_the_fuel_of_their_bucket() {
    let (cart, props) = (component::cart(), rejoin_proto::catalog::BucketProps::default());
    // Of smaller items the 64 MiB of memory would be too few.
    let shop = |writer: usize, items: usize, names: usize| {
        let mut large = Cart::default();
        for number in 0..items {
            large.add(&format!("{writer:x}"), &format!("article {:08}", number + writer * names), 1);
        }
        large.to_json()
    };
    for (what, siblings, items, apart) in
        [("other items", 4, 27_000, 50_000), ("the same items", 4, 27_000, 0), ("many siblings", 32, 3_400, 6_000)]
    {
        let carts: Vec<Vec<u8>> = (0..siblings).map(|writer| shop(writer, items, apart)).collect();
        let bytes: usize = carts.iter().map(Vec::len).sum();
        assert!((3 << 20..=props.object_bytes()).contains(&bytes), "{what}: {bytes} bytes are not near the limit");
        let lend = |(writer, cart): (u64, Vec<u8>)| Sibling { value: cart.into(), stamp_ms: 1, writer };
        let lent: Vec<Sibling> = (0..).zip(carts).map(lend).collect();
        // A result may be as large as it likes here: the fuel is what is asked for.
        let fuel = rejoin_proto::catalog::fuel_for(props.fuel, bytes);
        let limits = CallLimits { fuel, result_bytes: 16 << 20, ..CallLimits::default() };
        let merged = cart
            .host
            .merge(&cart.plugin, b"k", &lent, &CallLimits { fuel: 10 * fuel, ..limits })
            .expect("with ten times as much");
        let share = merged.fuel_used * 100 / fuel;
        assert!(share <= 95, "{what}: {} fuel for {bytes} bytes, {share} % of {fuel}", merged.fuel_used);
    }
}

#[test]
fn a_queue_makes_the_transcript_of_a_plugin_whether_it_compiles_it_or_finds_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let made = |instances: u32| {
        let host = Host::new(HostConfig { instances, ..HostConfig::default() }).expect("a host");
        let cache = ArtefactCache::open(dir.path(), 64 << 20, &host).expect("a cache");
        let queue = CompileQueue::inline(host, Compiler::InProcess, Some(cache));
        let (send, compiled) = channel();
        let done = move |result| send.send(result).expect("the test waits");
        let _pending =
            queue.compile(TenantShare::default(), component::cart_bytes().into(), ModuleLimits::default(), done);
        compiled.recv().expect("it is answered").expect("the cart").transcript()
    };
    let first = made(1).expect("a transcript");
    assert_eq!(made(2), Some(first), "from the cache, on another host");
    let cart = component::cart();
    assert_eq!(cart.host.transcript(&cart.plugin), Ok(Some(first)));
    assert_eq!(cart.plugin.transcript(), None, "no queue has loaded it");
}
