//! What is told at a deadline, and when.

use std::time::Duration;

use rejoin_client::{Bytes, ErrorKind, Result};
use rejoin_test_shell::{Setup, World, simulate};

/// There and back.
const ROUND_TRIP: Duration = Duration::from_millis(2 * 3 + 2);
/// What the SDK waits beyond the deadline that it told the node.
const GRACE: Duration = Duration::from_millis(200);

/// How a call failed, and after how long.
async fn failed<T: std::fmt::Debug>(
    world: &World,
    call: impl IntoFuture<Output = Result<T>>,
) -> (rejoin_client::Error, Duration) {
    let begun = world.now();
    let error = call.await.unwrap_err();
    (error, world.now() - begun)
}

#[test]
fn a_quorum_that_does_not_come_is_told_at_the_deadline_and_not_later() {
    simulate(&Setup::default(), |world| async move {
        world.plain().await;
        let client = world.patiently(|| world.pinned_builder("n1").attempts(1)).await;
        let bucket = client.bucket::<Bytes>("plain").unwrap();
        bucket.put("k", b"v".to_vec()).blind().await.unwrap();
        world.cut("n1", "n2");
        world.cut("n1", "n3");
        for wait in [Duration::from_millis(150), Duration::from_secs(1)] {
            // The peers are not known to be gone yet: the write is made, and nobody says that he has it.
            let (error, after) = failed(&world, bucket.put("k", b"w".to_vec()).blind().timeout(wait)).await;
            assert_eq!((error.kind(), error.needed(), error.got()), (ErrorKind::Unknown, 2, 1), "{error}");
            assert!(after >= wait && after <= wait + ROUND_TRIP, "{wait:?} became {after:?}");
            let (error, after) = failed(&world, bucket.get("k").timeout(wait)).await;
            assert_eq!((error.kind(), error.needed(), error.got()), (ErrorKind::TimedOut, 2, 1), "{error}");
            assert!(after >= wait && after <= wait + ROUND_TRIP, "{wait:?} became {after:?}");
        }
    });
}

#[test]
fn no_request_waits_longer_than_a_node_allows() {
    let setup = Setup { more: "timeout_ms = 200\nmax_timeout_ms = 300", ..Setup::default() };
    simulate(&setup, |world| async move {
        world.plain().await;
        let client = world.patiently(|| world.pinned_builder("n1").attempts(1)).await;
        let bucket = client.bucket::<Bytes>("plain").unwrap();
        bucket.put("k", b"v".to_vec()).blind().await.unwrap();
        world.cut("n1", "n2");
        world.cut("n1", "n3");
        let (error, after) = failed(&world, bucket.get("k").timeout(Duration::from_secs(3))).await;
        assert_eq!((error.kind(), error.got()), (ErrorKind::TimedOut, 1), "{error}");
        let most = Duration::from_millis(300);
        assert!(after >= most && after <= most + ROUND_TRIP, "{after:?}");
    });
}

#[test]
fn a_node_that_is_cut_from_its_client_is_given_up_shortly_after_the_deadline() {
    simulate(&Setup::default(), |world| async move {
        world.plain().await;
        let client = world.patiently(|| world.pinned_builder("n1").attempts(1)).await;
        let bucket = client.bucket::<Bytes>("plain").unwrap();
        bucket.put("k", b"v".to_vec()).blind().await.unwrap();
        world.cut("n1", rejoin_test_shell::SCRIPT);
        let wait = Duration::from_millis(400);
        let (error, after) = failed(&world, bucket.put("k", b"w".to_vec()).blind().timeout(wait)).await;
        assert_eq!(error.kind(), ErrorKind::Unknown, "it was sent, and may have arrived: {error}");
        assert!(after >= wait + GRACE && after <= wait + GRACE + ROUND_TRIP, "{after:?}");
        // Nothing came back at all, so the connection was given up with it, and a new one is not to be had.
        let (error, after) = failed(&world, bucket.get("k").timeout(wait)).await;
        assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");
        assert!(after <= wait + ROUND_TRIP, "{after:?}");
    });
}

#[test]
fn a_client_of_all_nodes_loses_one_of_them_and_hardly_notices() {
    simulate(&Setup::default(), |world| async move {
        let bucket = world.plain().await;
        world.cut("n1", rejoin_test_shell::SCRIPT);
        for key in 0..50_u32 {
            let begun = world.now();
            bucket.get(key.to_string()).await.unwrap();
            // Half of its five seconds are for the first node; only until that is known to be silent.
            let longest = Duration::from_millis(2500) + GRACE + Duration::from_millis(100);
            assert!(world.now() - begun <= longest, "key {key} took {:?}", world.now() - begun);
        }
        // The silent one is dialled a few times, a second each, and otherwise left alone.
        assert!(world.now() < Duration::from_secs(8), "fifty reads took until {:?}", world.now());
    });
}

#[test]
fn what_connecting_takes_is_part_of_a_calls_time() {
    simulate(&Setup::default(), |world| async move {
        world.plain().await;
        let client = world.patiently(|| world.pinned_builder("n1").attempts(1)).await;
        let bucket = client.bucket::<Bytes>("plain").unwrap();
        world.cut("n1", rejoin_test_shell::SCRIPT);
        failed(&world, bucket.get("k").timeout(Duration::from_millis(100))).await;
        // The connection was given up. A new one comes about in the middle of the call, and no quorum after it.
        world.cut("n1", "n2");
        world.cut("n1", "n3");
        let healing = world.clone();
        tokio::task::spawn_local(async move {
            tokio::time::sleep(Duration::from_millis(600)).await;
            healing.heal("n1", rejoin_test_shell::SCRIPT);
        });
        let wait = Duration::from_millis(1500);
        let (error, after) = failed(&world, bucket.get("k").timeout(wait)).await;
        assert_eq!((error.kind(), error.needed(), error.got()), (ErrorKind::TimedOut, 2, 1), "{error}");
        // A packet of the handshake may be sent again on the way: on a new connection that takes as long as the first
        // round trip is taken to be.
        let again = Duration::from_millis(40);
        assert!(after >= wait && after <= wait + ROUND_TRIP + again, "{after:?}");
    });
}

#[test]
fn a_call_whose_time_is_over_does_not_wait_for_anothers_dial() {
    simulate(&Setup::default(), |world| async move {
        world.plain().await;
        let client = world.patiently(|| world.pinned_builder("n1").attempts(1)).await;
        let bucket = client.bucket::<Bytes>("plain").unwrap();
        world.cut("n1", rejoin_test_shell::SCRIPT);
        let wait = Duration::from_millis(600);
        // The second gives the connection up while the first still waits; the third then dials, in vain, for a second.
        let second_and_third = async {
            failed(&world, bucket.get("k").timeout(Duration::from_millis(100))).await;
            failed(&world, bucket.get("k").timeout(Duration::from_secs(2))).await
        };
        let ((error, after), (unreachable, _)) =
            tokio::join!(failed(&world, bucket.get("k").timeout(wait)), second_and_third);
        assert_eq!(
            (error.kind(), unreachable.kind()),
            (ErrorKind::TimedOut, ErrorKind::Unreachable),
            "{error}; {unreachable}"
        );
        assert!(after >= wait + GRACE && after <= wait + GRACE + ROUND_TRIP, "{after:?}");
    });
}
