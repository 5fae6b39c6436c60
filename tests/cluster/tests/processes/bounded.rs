//! Hostile clients and peers against a real node: each attack is refused or bounded, others are served meanwhile, and
//! the memory of the node's process stays within a written cap. The book has the caps and the figures
//! (`internals/limits.md`); `cargo test --workspace --test processes bounded:: -- --nocapture` prints them.
#![allow(clippy::print_stdout, reason = "the figures are part of what a run prints")]

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant, SystemTime};

use rejoin_client::Bytes;
use rejoin_client::admin::{BucketProps, Scope};
use rejoin_proto::client::{ClientHello, Get, HelloReply, PROTOCOL, Request, RequestBody};
use rejoin_proto::{ErrorCode, LayoutRef, codec};
use rejoin_test_cluster::{Cluster, Intruder, http, name};
use rejoin_wire::{Class, CloseCode, Connection, Endpoint, Identity, Limits, PerClass, Validity};

const CLIENT: &str = "rejoin-client/1";
const PEER: &str = "rejoin-peer/1";
const MIB: u64 = 1 << 20;
/// What the nodes of these tests may have under way and before their only shard, each.
const UNDER_WAY: u64 = 32 * MIB;
const CONFIG: &str = "shards = 1\ninbox_bytes = 33554432\nin_flight_bytes = 33554432";
/// How long something is waited for that must come.
const PATIENCE: Duration = Duration::from_secs(60);

/// A node, and what is known of its memory.
struct Victim {
    cluster: Cluster,
    before: u64,
}

impl Victim {
    async fn start() -> Self {
        let cluster = Cluster::start_with(1, CONFIG).await;
        let props = BucketProps { n: 1, ..BucketProps::default() };
        cluster.bucket("plain", props).await;
        // One turn of everything, so that what a node takes once is there.
        let bucket = cluster.client().await.bucket::<Bytes>("plain").unwrap();
        bucket.put("large", vec![7; MIB as usize]).blind().await.unwrap();
        bucket.get("large").await.unwrap();
        let mut victim = Self { cluster, before: 0 };
        victim.settle();
        victim
    }

    /// From here on growth is counted.
    fn settle(&mut self) {
        let pid = self.cluster.pid(0);
        // 5: the highest memory is counted anew.
        std::fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
        self.before = self.bytes("VmRSS");
    }

    /// A figure of the process.
    fn bytes(&self, what: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.cluster.pid(0))).unwrap();
        let line = status.lines().find(|line| line.starts_with(what)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }

    /// The most memory since [`Victim::settle`] must be within the cap, and others must be served.
    async fn assert_bounded(&self, attack: &str, cap: u64) {
        let most = self.bytes("VmHWM").saturating_sub(self.before);
        let mib = |bytes: u64| bytes as f64 / MIB as f64;
        println!("| {attack} | {:.1} MiB | {:.0} MiB | of {:.0} MiB before |", mib(most), mib(cap), mib(self.before));
        assert!(most <= cap, "{attack}: {most} bytes more, the cap is {cap}");
        self.assert_serves(attack).await;
    }

    async fn assert_serves(&self, attack: &str) {
        let client = self.cluster.builder(0).connect_timeout(PATIENCE).timeout(PATIENCE).connect().await;
        let bucket =
            client.unwrap_or_else(|error| panic!("during {attack}: {error}")).bucket::<Bytes>("plain").unwrap();
        let written = bucket.put(attack, b"v".to_vec()).blind().await;
        written.unwrap_or_else(|error| panic!("during {attack}: {error}"));
        assert!(bucket.get(attack).await.unwrap().is_found(), "during {attack}");
        let (status, text) = http::get(self.cluster.admin(0), "/health").unwrap();
        assert_eq!(status, 200, "during {attack}: {text}");
    }

    fn address(&self) -> SocketAddr {
        self.cluster.address(0)
    }

    fn ca(&self) -> &str {
        self.cluster.files.ca.cert_pem()
    }

    /// A client that is let in, and takes little of what it is sent.
    async fn admitted(&self, token: &str) -> (Endpoint, Connection) {
        let mut limits = Limits::default();
        (limits.inbox_bytes, limits.stream_window) = (PerClass::all(64 << 10), 64 << 10);
        let endpoint = Endpoint::for_dialling(Identity::client(self.ca(), None).unwrap(), limits).unwrap();
        let connection = endpoint.connect_client(self.address()).await.unwrap();
        let reply = greet(&connection, token).await;
        assert!(matches!(reply, HelloReply::Welcome(_)), "{reply:?}");
        (endpoint, connection)
    }
}

/// Says hello, and gives the answer.
async fn greet(connection: &Connection, token: &str) -> HelloReply {
    let hello = ClientHello { protocol: PROTOCOL, token: token.into(), tenant: None, client: "hostile".into() };
    connection.sender().send(Class::Control, 0, codec::encode(&hello).into()).await.unwrap();
    codec::decode(&connection.recv().await.expect("an answer").body).unwrap()
}

/// Clients that are let in ask for far more than they ever read, on every stream. What waits for them is bounded: by
/// what all clients may have queued, by what is under way, and by what is on its way to each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_never_read_take_a_bounded_part_of_the_nodes_memory() {
    const CLIENTS: u64 = 32;
    const READS: u64 = 40;
    let mut victim = Victim::start().await;
    // Those that are served meanwhile are of another tenant: this one has as many requests waiting as it may.
    victim.cluster.client().await.admin().create_tenant("wild").await.unwrap();
    let wild = victim.cluster.builder(0).tenant("wild").connect().await.unwrap();
    wild.admin().create_bucket("plain", BucketProps { n: 1, ..BucketProps::default() }).await.unwrap();
    wild.bucket::<Bytes>("plain").unwrap().put("large", vec![7; MIB as usize]).blind().await.unwrap();
    let token = wild.admin().create_token("app", Scope::ReadWrite).await.unwrap();
    let body = RequestBody::Get(Get {
        bucket: name("plain"),
        key: b"large".to_vec().into(),
        r: None,
        pr: None,
        siblings: false,
        show: rejoin_proto::client::Show::Nothing,
    });
    let request = Request { deadline_ms: 60_000, trace: 0, layout: LayoutRef::default(), body };
    let request = codec::encode(&request);
    victim.settle();
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(victim.admitted(token.text()).await);
    }
    for number in 0..READS {
        for (_, connection) in &clients {
            for class in [Class::Request, Class::Large, Class::Bulk] {
                // A node that does not read on refuses nothing: the queue of this side fills.
                let _ = connection.sender().try_send(class, number + 1, request.clone().into());
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // What all clients may have queued and the requests under way, and half of that for what an allocator keeps. And
    // what a connection holds until it is acknowledged: a window for each stream, and one more.
    let cap = (256 * MIB + 2 * UNDER_WAY) * 3 / 2 + CLIENTS * 5 * 2 * MIB;
    victim.assert_bounded("32 clients ask for 1.25 to 3.75 GiB and read nothing", cap).await;
    let still = clients.iter().filter(|(_, connection)| connection.close_reason().is_none()).count();
    println!("{still} of {CLIENTS} of them are still connected");
}

/// Clients that greet and say nothing: the oldest give way to newcomers, and all are let go after a while.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_hellos_are_let_go_and_take_little() {
    const INTRUDERS: usize = 600;
    let mut victim = Victim::start().await;
    victim.settle();
    let mut slow = Vec::new();
    for _ in 0..INTRUDERS {
        let intruder = Intruder::dial(victim.address(), victim.ca(), CLIENT, None).await.unwrap();
        let streams = intruder.greet().await;
        slow.push((intruder, streams));
    }
    victim.assert_bounded("600 clients greet and never say hello", 96 * MIB).await;
    let mut codes = std::collections::BTreeMap::new();
    for (intruder, _) in &slow {
        let ended = tokio::time::timeout(PATIENCE, intruder.ended()).await.expect("it is let go");
        let quinn::ConnectionError::ApplicationClosed(close) = ended else { panic!("{ended:?}") };
        *codes.entry(close.error_code.into_inner()).or_insert(0) += 1;
    }
    println!("they were closed with {codes:?}");
    // A refusal of the node's own.
    let no_hello = CloseCode(CloseCode::FIRST_FREE.0 + 16);
    let known = [CloseCode::BUSY, CloseCode::TOO_SLOW, no_hello].map(|code| u64::from(code.0));
    assert!(codes.keys().all(|code| known.contains(code)), "{codes:?}");
}

/// The first datagram of a fresh attempt to connect.
async fn initial(ca: &str) -> Vec<u8> {
    let tap = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let to = tap.local_addr().unwrap();
    let dialling = tokio::spawn({
        let ca = ca.to_owned();
        async move { drop(Intruder::dial(to, &ca, CLIENT, None).await) }
    });
    let mut datagram = vec![0; 65_536];
    let length = tap.recv(&mut datagram).await.unwrap();
    dialling.abort();
    datagram.truncate(length);
    datagram
}

/// Sends them from one address that never answers. Gives the bytes of the answers, and how many of them were a Retry.
async fn spoof(to: SocketAddr, initials: &[Vec<u8>]) -> (usize, usize) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    for datagram in initials {
        socket.send_to(datagram, to).unwrap();
    }
    // Until nothing comes any more.
    let answers = tokio::task::spawn_blocking(move || {
        let (mut answered, mut retries, mut buffer) = (0, 0, vec![0; 65_536]);
        let end = Instant::now() + PATIENCE;
        while let (Ok((length, _)), true) = (socket.recv_from(&mut buffer), Instant::now() < end) {
            answered += length;
            retries += usize::from(buffer[0] & 0xf0 == 0xf0);
        }
        (answered, retries)
    });
    answers.await.unwrap()
}

/// First datagrams whose sender never answers, as if its address were another's. Nobody is flooded with the answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spoofed_first_datagrams_are_answered_by_at_most_three_times_their_bytes() {
    let mut victim = Victim::start().await;
    for spoofed in [32, 300] {
        let mut initials = Vec::new();
        for _ in 0..spoofed {
            initials.push(initial(victim.ca()).await);
        }
        let is_initial = |datagram: &Vec<u8>| datagram.len() >= 1_200 && datagram[0] & 0xf0 == 0xc0;
        assert!(initials.iter().all(is_initial), "they are Initials");
        victim.settle();
        let address = victim.address();
        let (spoof, ()) = tokio::join!(spoof(address, &initials), victim.assert_serves("spoofed initials"));
        let (answered, retries) = spoof;
        let sent: usize = initials.iter().map(Vec::len).sum();
        let times = answered as f64 / sent as f64;
        println!(
            "{spoofed} spoofed initials of {sent} bytes: {times:.2} times as many bytes come back; {retries} retries"
        );
        // QUIC allows three times. An address that is not proved is only asked to prove it.
        assert!(answered > 0 && answered <= 3 * sent, "{answered} bytes for {sent}");
        assert!(retries > 0, "none of {spoofed} initials is answered by a Retry");
        victim.assert_bounded(&format!("{spoofed} spoofed initials"), 32 * MIB).await;
    }
}

/// A frame is refused by its header, and one that is announced takes no memory before it comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn oversized_frames_are_refused_and_announced_ones_take_nothing() {
    let mut victim = Victim::start().await;
    let token = victim.cluster.client().await.admin().create_token("app", Scope::ReadWrite).await.unwrap();
    victim.settle();
    for _ in 0..64 {
        let intruder = Intruder::dial(victim.address(), victim.ca(), CLIENT, None).await.unwrap();
        let mut streams = intruder.greet().await;
        let mut header = [0; 12];
        header[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        streams[0].0.write_all(&header).await.unwrap();
        let ended = tokio::time::timeout(PATIENCE, intruder.ended()).await.expect("it is refused");
        let quinn::ConnectionError::ApplicationClosed(close) = ended else { panic!("{ended:?}") };
        assert_eq!(close.error_code.into_inner(), u64::from(CloseCode::FRAME_TOO_LARGE.0));
    }
    victim.assert_bounded("64 frames of 4 GiB", 32 * MIB).await;
    victim.settle();
    let hello = ClientHello { protocol: PROTOCOL, token: token.text().into(), tenant: None, client: "big".into() };
    let hello = codec::encode(&hello);
    let mut open = Vec::new();
    for _ in 0..64 {
        let intruder = Intruder::dial(victim.address(), victim.ca(), CLIENT, None).await.unwrap();
        let mut streams = intruder.greet().await;
        let header = |length: usize| [&(length as u32).to_le_bytes()[..], &1_u64.to_le_bytes()].concat();
        streams[0].0.write_all(&[header(hello.len()), hello.clone()].concat()).await.unwrap();
        let mut answer = [0; 12];
        streams[0].1.read_exact(&mut answer).await.unwrap();
        for (send, _) in &mut streams[1..] {
            send.write_all(&[header(18 << 20), vec![0; 100]].concat()).await.unwrap();
        }
        open.push((intruder, streams));
    }
    victim.assert_bounded("192 frames of 18 MiB that are announced and do not come", 96 * MIB).await;
    assert!(open.iter().all(|(intruder, _)| intruder.connection.close_reason().is_none()), "it may yet come");
}

/// Certificates on the wrong side: what they say counts, and nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nodes_certificate_is_no_token_and_a_clients_certificate_is_no_peer() {
    let victim = Victim::start().await;
    let ca = &victim.cluster.files.ca;
    let valid = Validity::years(SystemTime::now(), 1);
    let issued = ca.issue_node(&name("n7"), &[], valid).unwrap();
    let identity = Identity::node(ca.cert_pem(), &issued.cert_pem, &issued.key_pem).unwrap();
    let endpoint = Endpoint::for_dialling(identity, Limits::default()).unwrap();
    for token in ["", "root:guess"] {
        let connection = endpoint.connect_client(victim.address()).await.unwrap();
        let HelloReply::Refused(error) = greet(&connection, token).await else {
            panic!("a node's certificate is a token")
        };
        assert_eq!(error.code, ErrorCode::Denied, "{error}");
    }
    let client = ca.issue_client(&name("somebody"), valid).unwrap();
    for own in [Some(&client), None] {
        let ended = match Intruder::dial(victim.address(), victim.ca(), PEER, own).await {
            Ok(intruder) => tokio::time::timeout(PATIENCE, intruder.ended()).await.expect("it is refused"),
            Err(ended) => ended,
        };
        let quinn::ConnectionError::ApplicationClosed(close) = ended else { panic!("{ended:?}") };
        assert_eq!(close.error_code.into_inner(), u64::from(CloseCode::NOT_A_NODE.0), "{close}");
    }
    victim.assert_serves("certificates on the wrong side").await;
}
