//! The steps of the demo: two teams share a cluster, each with its own merge. One runs wild with large values, many
//! requests and slow merges, and is held to its quota; the other one's requests go on. An operator sees who used what.
//! Then the wild team's token is revoked.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use rejoin_client::admin::{Admin, BucketProps, Limit, Quota, Scope, Usage};
use rejoin_client::{Bucket, Bytes, ClientBuilder, Context, Error, ErrorKind, Json, Profile};
use rejoin_proto::client::{ClientHello, HelloReply, PROTOCOL};
use rejoin_proto::codec;
use rejoin_wire::{Class, Connection, Endpoint, Identity, Limits};

use crate::demo::cart_client::Cart;
use crate::demo::printer::Printer;
use crate::demo::steps;
use crate::dev::wait_connected;
use crate::failure::{Exit, Failure};
use crate::files;
use crate::processes::Processes;
use crate::ready;

/// The well-behaved team, and the other one.
const SHOP: &str = "shop";
const GAMES: &str = "games";
/// The bucket and the key that both have.
const BUCKET: &str = "users";
const KEY: &str = "ann";
/// Clients of the shop, and the pause of each between two rounds.
const SHOPPERS: u32 = 4;
const BREATH: Duration = Duration::from_millis(5);
/// How long the shop's requests are measured, alone and beside the other team.
const MEASURED: Duration = Duration::from_secs(4);
/// Clients of the wild team, and how soon each comes again after a refusal.
const WILD: u32 = 12;
const AGAIN: Duration = Duration::from_millis(25);
/// Fields of a session of the wild team, and bytes of each: some 70 kB, whose merge takes fuel.
const FIELDS: u32 = 600;
const FIELD_BYTES: usize = 64;
/// What the wild team may have at each node, a second.
const REQUESTS: u64 = 40;
const BYTES: u64 = 1_000_000;
const FUEL: u64 = 20_000_000;
/// The longest that 99 of 100 of the shop's requests may take beside the other team, and the part of its requests alone
/// that it must come to. Far from what is expected: a machine may be slow and have much else to do, but nobody may be
/// kept waiting until all of the neighbour's work is done.
const BOUND: Duration = Duration::from_secs(2);
const LEAST_PART: usize = 20;
/// The time for a step of the cluster.
const TIMEOUT: Duration = Duration::from_secs(20);

/// The demo.
pub(super) struct TenantsDemo<'a> {
    processes: &'a mut Processes,
    printer: Printer,
    profile: Profile,
    shop: Bucket<Json<Cart>>,
    wild: Wild,
}

/// The wild team: its token, what it has done, and when it began.
struct Wild {
    token: String,
    load: Arc<WildLoad>,
    tasks: JoinSet<Option<Error>>,
    began: Instant,
}

/// What the wild clients have met.
#[derive(Default)]
struct WildLoad {
    over: AtomicBool,
    taken: AtomicU64,
    refused: AtomicU64,
    /// The words of one refusal for each limit.
    words: std::sync::Mutex<std::collections::BTreeSet<String>>,
}

/// Requests of the shop.
#[derive(Default)]
struct Shopped {
    times: Vec<Duration>,
    merged: usize,
    wrong: Vec<String>,
}

impl TenantsDemo<'_> {
    /// Runs all steps.
    ///
    /// # Errors
    /// The first claim that does not hold, or a failure of the cluster.
    pub(super) async fn run(processes: &mut Processes, printer: Printer) -> Result<(), Failure> {
        let mut demo = TenantsDemo::begin(processes, printer).await?;
        demo.apart().await?;
        printer.chapter("The shop alone")?;
        let before = demo.shopped("the shop").await?;
        demo.run_wild().await?;
        let beside = demo.shopped("the shop, beside them").await?;
        demo.still_served(&before, &beside)?;
        demo.used().await?;
        demo.revoke().await
    }

    async fn begin(processes: &mut Processes, printer: Printer) -> Result<TenantsDemo<'_>, Failure> {
        let client = steps::begin(processes, &printer, "Two teams on a cluster of three").await?;
        let profile = Profile::load(processes.cluster.profile())?;
        for (tenant, component) in [(SHOP, ready::CART.component()?), (GAMES, ready::SESSION.component()?)] {
            client.admin().create_tenant(tenant).await?;
            let admin = admin_of(&profile, tenant).await?;
            let plugin = admin.push_plugin("merge", component).await?;
            let props = BucketProps { plugin: Some(plugin.activation()), ..BucketProps::default() };
            admin.create_bucket(BUCKET, props).await?;
            printer.line(&format!(
                "tenant {tenant} has a bucket {BUCKET}; its merge is component {:.8}…",
                plugin.digest.to_string()
            ))?;
        }
        // Every node has both plugins.
        wait_connected(&processes.cluster).await?;
        let shop = client_of(&profile, SHOP, &token(&profile, SHOP).await?).connect().await?.bucket(BUCKET)?;
        let token = token(&profile, GAMES).await?;
        let wild = Wild { token, load: Arc::default(), tasks: JoinSet::new(), began: Instant::now() };
        Ok(TenantsDemo { processes, printer, profile, shop, wild })
    }

    /// Names of one team mean nothing to the other.
    async fn apart(&self) -> Result<(), Failure> {
        let games: Bucket<Bytes> = client_of(&self.profile, GAMES, &self.wild.token).connect().await?.bucket(BUCKET)?;
        let (cart, session) = (cart_of("ann", 2), session(0, 0));
        self.shop.put(KEY, &cart).create().await?;
        games.put(KEY, session.clone()).create().await?;
        let (carts, sessions) = (self.shop.get(KEY).await?.into_value()?, games.get(KEY).await?.into_value()?);
        self.printer.claim(
            carts == Some(cart) && sessions == Some(session),
            &format!("both have a key {KEY} in {BUCKET}, and each reads its own"),
            "another value",
        )?;
        let context = self.shop.get(KEY).await?.context;
        let crossed = games.put(KEY, self::session(0, 1)).context(&context).await;
        let is_refused = matches!(&crossed, Err(error) if error.kind() == ErrorKind::BadContext);
        let claim = "a context that the shop was given opens nothing of games";
        self.printer.claim(is_refused, claim, &format!("{crossed:?}"))
    }

    /// Runs the shop's load for a while, and prints how long its requests took.
    async fn shopped(&self, whose: &str) -> Result<Shopped, Failure> {
        let end = Instant::now() + MEASURED;
        let mut tasks = JoinSet::new();
        for shopper in 0..SHOPPERS {
            let bucket = self.shop.clone();
            tasks.spawn(async move { shop_until(&bucket, shopper, end).await });
        }
        let mut all = Shopped::default();
        for one in tasks.join_all().await {
            all.times.extend(one.times);
            all.wrong.extend(one.wrong);
            all.merged += one.merged;
        }
        all.times.sort_unstable();
        let (requests, merged, p50, p99) = (all.times.len(), all.merged, ms(all.at(50)), ms(all.at(99)));
        self.printer.line(&format!("{whose}: {requests} requests, {merged} merges, p50 {p50}, p99 {p99}"))?;
        Ok(all)
    }

    async fn run_wild(&mut self) -> Result<(), Failure> {
        self.printer.chapter("The games team runs wild")?;
        let quota = Quota::default()
            .with(Limit::RequestsPerSecond, REQUESTS)
            .with(Limit::BytesPerSecond, BYTES)
            .with(Limit::FuelPerSecond, FUEL);
        let behind = admin_of(&self.profile, GAMES).await?.set_quota(None, quota).await?;
        self.printer.claim(behind.is_empty(), "every node knows of the quota of games", &format!("{behind:?}"))?;
        self.printer.line(&format!(
            "  at each node, a second: {REQUESTS} requests, {} MB, {} million units of fuel",
            BYTES / 1_000_000,
            FUEL / 1_000_000
        ))?;
        self.wild.began = Instant::now();
        for number in 1..=WILD {
            // Each request is tried once: what is refused is to be seen.
            let client = client_of(&self.profile, GAMES, &self.wild.token).attempts(1).connect().await?;
            let bucket = client.bucket(BUCKET)?;
            let load = self.wild.load.clone();
            self.wild.tasks.spawn(async move { load.run(number, bucket).await });
        }
        let kb = session(0, 0).len() / 1_000;
        self.printer.line(&format!("{WILD} clients of games write and merge sessions of {kb} kB as fast as they can"))
    }

    /// The other team's work has kept nobody of the shop waiting.
    fn still_served(&self, before: &Shopped, beside: &Shopped) -> Result<(), Failure> {
        let wrong: Vec<&String> = before.wrong.iter().chain(&beside.wrong).collect();
        let seen = format!("{}, such as {:?}", wrong.len(), wrong.first());
        self.printer.claim(
            wrong.is_empty(),
            "no request of the shop has failed, and each cart had both writes",
            &seen,
        )?;
        let (p99, least) = (beside.at(99), before.times.len() / LEAST_PART);
        let claim = format!("99 in 100 of its requests took less than {} s beside them", BOUND.as_secs());
        self.printer.claim(
            p99 < BOUND && beside.times.len() > least,
            &claim,
            &format!("p99 {}, {} requests", ms(p99), beside.times.len()),
        )?;
        let refused = self.wild.load.refused.load(Ordering::Relaxed);
        let words = self.wild.load.words.lock().map(|words| words.clone()).unwrap_or_default();
        self.printer.claim(refused > 0, &format!("games was refused {refused} times, such as:"), "no refusal")?;
        words.iter().try_for_each(|words| self.printer.line(&format!("    {words}")))
    }

    async fn used(&mut self) -> Result<(), Failure> {
        self.printer.chapter("An operator sees who used what (rejoin tenant usage)")?;
        let (shop, games) = (self.usage(SHOP).await?, self.usage(GAMES).await?);
        let elapsed = self.wild.began.elapsed();
        self.printer.line("tenant   requests    refused    MB in    million units of fuel")?;
        for (tenant, usage) in [(SHOP, &shop), (GAMES, &games)] {
            let (requests, refused, fuel) = (usage.requests, usage.refused, usage.fuel / 1_000_000);
            let megabytes = usage.bytes_in as f64 / 1e6;
            self.printer.line(&format!("{tenant:6} {requests:10} {refused:10} {megabytes:8.1} {fuel:12}"))?;
        }
        let both = shop.fuel > 0 && games.fuel > 0 && shop.refused == 0 && games.refused > 0;
        self.printer.claim(both, "both have merged, and only games was refused", &format!("{shop:?} {games:?}"))?;
        // A second's worth may come at once, and what came before the quota counts too.
        let seconds = elapsed.as_secs() + 3;
        let most = |rate: u64| 3 * rate * seconds;
        self.printer.claim(
            games.requests <= most(REQUESTS) && games.bytes_in <= most(BYTES),
            "and it had no more requests and bytes than its quota at three nodes",
            &format!("{} requests and {} bytes in {seconds} s", games.requests, games.bytes_in),
        )
    }

    async fn revoke(&mut self) -> Result<(), Failure> {
        self.printer.chapter("The token of games is revoked")?;
        let mut idle = Vec::new();
        for node in self.processes.cluster.nodes().to_vec() {
            idle.push(self.connection(node.address).await?);
        }
        let admin = admin_of(&self.profile, GAMES).await?;
        let began = Instant::now();
        let behind = admin.revoke_token("app").await?;
        self.printer.claim(behind.is_empty(), "every node knows", &format!("{behind:?}"))?;
        let mut why = Vec::new();
        for (_, connection) in &idle {
            let ended = tokio::time::timeout(TIMEOUT, connection.closed()).await;
            why.push(ended.map_err(|_| Failure::new(Exit::Retry, "a connection with it stays open"))?.to_string());
        }
        let took = began.elapsed();
        let claim = format!("idle connections with it ended at all three nodes within {}", ms(took));
        self.printer.claim(why.iter().all(|why| why.contains("revoked")), &claim, &why.join(", "))?;
        let load = self.wild.load.clone();
        let denied = |error: &Option<Error>| error.as_ref().is_some_and(|error| error.kind() == ErrorKind::Denied);
        let mut ended = Vec::new();
        while let Ok(Some(one)) = tokio::time::timeout(TIMEOUT, self.wild.tasks.join_next()).await {
            ended.push(one.map_err(Failure::usage)?);
        }
        load.over.store(true, Ordering::Relaxed);
        let all = ended.len() == WILD as usize && ended.iter().all(denied);
        self.printer.claim(all, &format!("all {WILD} wild clients are denied"), &format!("{ended:?}"))?;
        let cart = self.shop.get(KEY).await?.into_value()?;
        self.printer.claim(cart.is_some(), "and the shop goes on", "nothing")
    }

    async fn usage(&self, tenant: &str) -> Result<Usage, Failure> {
        Ok(admin_of(&self.profile, tenant).await?.usage().await?)
    }

    /// A connection of games that says nothing after its hello.
    async fn connection(&self, node: std::net::SocketAddr) -> Result<(Endpoint, Connection), Failure> {
        let ca = files::read_text(&self.processes.cluster.dir().join("ca.pem"))?;
        let identity = Identity::client(&ca, None).map_err(Failure::usage)?;
        let endpoint = Endpoint::for_dialling(identity, Limits::default()).map_err(Failure::usage)?;
        let connection = endpoint.connect_client(node).await.map_err(Failure::usage)?;
        let (token, client) = (self.wild.token.clone(), "idle".into());
        let hello = codec::encode(&ClientHello { protocol: PROTOCOL, token, tenant: None, client });
        connection.sender().send(Class::Control, 0, hello.into()).await.map_err(Failure::usage)?;
        let answer = connection.recv().await.ok_or_else(|| Failure::usage("the node has closed the connection"))?;
        match codec::decode(&answer.body).map_err(Failure::usage)? {
            HelloReply::Welcome(_) => Ok((endpoint, connection)),
            HelloReply::Refused(error) => Err(Failure::new(Exit::Denied, error)),
        }
    }
}

impl Shopped {
    /// How long so many in a hundred took at the most.
    fn at(&self, percent: usize) -> Duration {
        let at = (self.times.len() * percent / 100).min(self.times.len().saturating_sub(1));
        self.times.get(at).copied().unwrap_or_default()
    }

    /// Notes how long a request took, and why it failed if it did.
    async fn timed<T>(&mut self, request: impl Future<Output = rejoin_client::Result<T>>) -> Option<T> {
        let began = Instant::now();
        let outcome = request.await;
        self.times.push(began.elapsed());
        outcome.map_err(|error| self.wrong.push(error.to_string())).ok()
    }
}

/// Two people of the shop write to one cart at once, and a third one reads it, again and again.
async fn shop_until(bucket: &Bucket<Json<Cart>>, shopper: u32, end: Instant) -> Shopped {
    let (mut shopped, mut seen): (_, Option<Context>) = (Shopped::default(), None);
    let key = format!("{KEY} {shopper} {:08x}", rand::random::<u32>());
    let mut round = 0;
    while Instant::now() < end {
        round += 1;
        let (ann, bob) = (cart_of("ann", round), cart_of("bob", round));
        let put = bucket.put(&key, &ann);
        let put = match &seen {
            Some(context) => put.context(context),
            None => put.blind(),
        };
        shopped.timed(put.into_future()).await;
        shopped.timed(bucket.put(&key, &bob).blind().into_future()).await;
        if let Some(read) = shopped.timed(bucket.get(&key).into_future()).await {
            seen = Some(read.context.clone());
            shopped.merged += usize::from(read.merged_by.is_some());
            match read.into_value() {
                Ok(Some(cart)) if (cart.quantity("ann's"), cart.quantity("bob's")) == (round, round) => {}
                other => shopped.wrong.push(format!("in round {round} the cart is {other:?}")),
            }
        }
        tokio::time::sleep(BREATH).await;
    }
    shopped
}

impl WildLoad {
    /// Makes conflicts and reads them without a pause, until it is denied. Returns why it has ended.
    async fn run(&self, number: u32, bucket: Bucket<Bytes>) -> Option<Error> {
        let (mut round, mut seen): (u32, Option<Context>) = (0, None);
        let key = format!("wild {number}");
        while !self.over.load(Ordering::Relaxed) {
            round += 1;
            let put = bucket.put(&key, session(number, 2 * round));
            let first = match &seen {
                Some(context) => put.context(context).await,
                None => put.blind().await,
            };
            let second = bucket.put(&key, session(number, 2 * round + 1)).blind().await;
            let read = bucket.get(&key).await;
            if let Ok(read) = &read {
                seen = Some(read.context.clone());
            }
            for outcome in [first.map(drop), second.map(drop), read.map(drop)] {
                match outcome {
                    Ok(()) => drop(self.taken.fetch_add(1, Ordering::Relaxed)),
                    Err(error) if error.kind() == ErrorKind::Denied => return Some(error),
                    Err(error) => self.was_refused(&error).await,
                }
            }
        }
        None
    }

    async fn was_refused(&self, error: &Error) {
        if error.kind() == ErrorKind::QuotaExceeded {
            self.refused.fetch_add(1, Ordering::Relaxed);
            // What comes behind the figure of the limit differs each time.
            let words = error.to_string();
            let words = words.split([',', ';']).next().unwrap_or_default().to_owned();
            if let Ok(mut all) = self.words.lock() {
                all.insert(words);
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// A cart that one person has just filled.
fn cart_of(writer: &str, quantity: u32) -> Cart {
    let mut cart = Cart::default();
    cart.add(writer, &format!("{writer}'s"), quantity);
    cart
}

/// A large session in the format of `plugins/session`, which no other write has.
fn session(writer: u32, number: u32) -> Vec<u8> {
    let text = "x".repeat(FIELD_BYTES);
    let field = |at: u32| format!(r#""field-{at:05}":{{"stamp":{number},"writer":"w{writer}","value":"{text}"}}"#);
    format!("{{{}}}", (0..FIELDS).map(field).collect::<Vec<_>>().join(",")).into_bytes()
}

fn ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

/// The operator, in a tenant.
async fn admin_of(profile: &Profile, tenant: &str) -> Result<Admin, Failure> {
    Ok(profile.builder().tenant(tenant).connect().await?.admin())
}

/// Makes the token `app` of a tenant's programs.
async fn token(profile: &Profile, tenant: &str) -> Result<String, Failure> {
    Ok(admin_of(profile, tenant).await?.create_token("app", Scope::ReadWrite).await?.text().to_owned())
}

/// A program of a tenant.
fn client_of(profile: &Profile, name: &str, token: &str) -> ClientBuilder {
    profile.builder().name(name).token(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wild_sessions_are_large_and_all_different() {
        let (one, other) = (session(1, 2), session(1, 3));
        assert!(one != other && (50_000..200_000).contains(&one.len()), "{}", one.len());
        let parsed: serde_json::Value = serde_json::from_slice(&one).unwrap();
        assert_eq!(parsed.as_object().unwrap().len(), FIELDS as usize);
        assert_eq!(parsed["field-00000"]["stamp"], 2);
    }

    #[test]
    fn a_quantile_is_one_of_the_times() {
        let times: Vec<Duration> = (1..=200).map(Duration::from_millis).collect();
        let shopped = Shopped { times, ..Shopped::default() };
        assert_eq!((shopped.at(50).as_millis(), shopped.at(99).as_millis()), (101, 199));
        assert_eq!(Shopped::default().at(99), Duration::ZERO);
    }
}
