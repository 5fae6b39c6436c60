//! What happens: three nodes share a cart, one is cut off, both sides shop, the cut heals, the carts merge.

use std::time::Duration;

use tokio::time::Instant;

use rejoin_client::Profile;
use rejoin_client::admin::PluginInfo;

use crate::cart;
use crate::demo::shopper::{Cart, Seen, Shopper};
use crate::demo::teller::Teller;
use crate::dev::together;
use crate::failure::{Exit, Failure};
use crate::http::post;
use crate::processes::Processes;

/// The cart that everybody shares.
const KEY: &str = "family";
/// How long the cluster may take to come to rest.
const PATIENCE: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(50);

/// The people of the story: Ann on one side of the split, Bob on the other, and somebody who only looks, at the node
/// between.
pub(super) struct Story<'a> {
    processes: &'a mut Processes,
    teller: Teller,
    plugin: PluginInfo,
    ann: Shopper,
    eve: Shopper,
    bob: Shopper,
}

impl Story<'_> {
    /// Tells it from the beginning to the end.
    ///
    /// # Errors
    /// The first claim that does not hold, or what went wrong.
    pub(super) async fn tell(processes: &mut Processes, teller: Teller) -> Result<(), Failure> {
        let mut story = Story::begin(processes, teller).await?;
        story.before().await?;
        story.split().await?;
        story.shop_apart().await?;
        story.heal().await?;
        story.merge().await?;
        story.repaired().await
    }

    async fn begin(processes: &mut Processes, teller: Teller) -> Result<Story<'_>, Failure> {
        teller.chapter("A cluster of three")?;
        let ids = processes.start()?;
        for (seat, id) in processes.cluster.seats().iter().zip(ids) {
            teller.line(&format!("{} is process {id}, on {}", seat.name(), seat.address))?;
        }
        let cluster = processes.cluster.clone();
        let client = tokio::select! {
            biased;
            client = together(&cluster) => client?,
            ended = processes.one_has_ended() => return Err(ended),
        };
        let plugin = cart::set_up(&client, 3).await?;
        teller.line(&format!("bucket cart keeps 3 copies and merges with {} {}", plugin.name, plugin.version))?;
        teller.line(&format!("  (component {})", plugin.digest))?;
        let profile = Profile::load(processes.cluster.profile())?;
        let seats = processes.cluster.seats().to_vec();
        let ann = Shopper::at(&profile, seats[0].address, "ann").await?;
        let eve = Shopper::at(&profile, seats[1].address, "eve").await?;
        let bob = Shopper::at(&profile, seats[2].address, "bob").await?;
        Ok(Story { processes, teller, plugin, ann, eve, bob })
    }

    async fn before(&mut self) -> Result<(), Failure> {
        self.teller.chapter("Before")?;
        let cart = self.ann.shop(KEY, 3, |cart, me| {
            cart.add(me, "apples", 2);
            cart.add(me, "bread", 1);
        });
        let cart = cart.await?;
        self.teller.line(&format!("Ann, at n1, puts {cart} into the family's cart"))?;
        let (ann, bob) = (self.read(&self.ann, 1).await?, self.read(&self.bob, 1).await?);
        let same = ann.cart == cart && bob.cart == cart;
        self.teller.claim(same, "n1 and n3 have the same cart", &format!("{} and {}", ann.cart, bob.cart))
    }

    async fn split(&mut self) -> Result<(), Failure> {
        self.teller.chapter("The network splits")?;
        for (me, other) in [(0, 2), (1, 2), (2, 0), (2, 1)] {
            let seats = self.processes.cluster.seats();
            post(seats[me].admin, &format!("/faults/cut/{}", seats[other].name())).await?;
        }
        self.teller.line("n3 is cut off:  n1 ── n2   ╳   n3")
    }

    async fn shop_apart(&mut self) -> Result<(), Failure> {
        self.teller.chapter("Both sides go on shopping (w = 1)")?;
        let left = self.ann.shop(KEY, 1, |cart, me| {
            cart.remove("bread");
            cart.add(me, "pears", 3);
        });
        let left = left.await?;
        self.teller.line("Ann, at n1, takes the bread out that she had seen, and adds 3 pears")?;
        let right = self.bob.shop(KEY, 1, |cart, me| {
            cart.add(me, "apples", 1);
            cart.add(me, "cheese", 1);
        });
        let right = right.await?;
        self.teller.line("Bob, at n3, knows nothing of that, and adds 1 apple and 1 cheese")?;
        let (ann, bob) = (self.read(&self.ann, 1).await?.cart, self.read(&self.bob, 1).await?.cart);
        self.teller.line(&format!("n1 says: {ann}"))?;
        self.teller.line(&format!("n3 says: {bob}"))?;
        let seen = format!("{ann} and {bob}");
        let apart = ann == left && bob == right && ann.quantity("bread") == 0 && bob.quantity("bread") == 1 && bob.quantity("pears") == 0;
        self.teller.claim(apart, "both sides took writes, and differ", &seen)
    }

    async fn heal(&mut self) -> Result<(), Failure> {
        self.teller.chapter("The network heals")?;
        for seat in self.processes.cluster.seats() {
            post(seat.admin, "/faults/heal").await?;
        }
        together(&self.processes.cluster).await?;
        self.teller.line("n1 ── n2 ── n3")
    }

    async fn merge(&mut self) -> Result<(), Failure> {
        self.teller.chapter("A read of all three (r = 3)")?;
        let seen = self.read(&self.eve, 3).await?;
        self.teller.line(&format!("Eve, at n2, finds {} and sees: {}", count(seen.siblings), seen.cart))?;
        let (name, digest) = seen.merged_by.clone().unwrap_or_default();
        let expected = (self.plugin.name.to_string(), self.plugin.digest.to_string());
        let by = format!("they were merged by plugin {name}, component {}…", digest.get(..16).unwrap_or_default());
        self.teller.claim((name, digest) == expected, &by, "another plugin, or none")?;
        let shown = seen.cart.to_string();
        self.teller.claim(is_union(&seen.cart), "everything both have added is there: 3 apples, 3 pears, 1 cheese", &shown)?;
        self.teller.claim(seen.cart.quantity("bread") == 0, "the bread that Ann took out stays out", &shown)?;
        seen.cart.writers().iter().try_for_each(|line| self.teller.line(line))
    }

    /// The read has repaired the replicas; each is asked for its own copy.
    async fn repaired(&mut self) -> Result<(), Failure> {
        self.teller.chapter("Each node's own copy (r = 1)")?;
        let end = Instant::now() + PATIENCE;
        let carts = loop {
            let mut carts = Vec::new();
            for at in [&self.ann, &self.eve, &self.bob] {
                carts.push(self.read(at, 1).await?.cart);
            }
            let equal = carts.iter().all(|cart| *cart == carts[0] && is_union(cart));
            if equal || Instant::now() >= end {
                break carts;
            }
            tokio::time::sleep(PAUSE).await;
        };
        for (number, cart) in (1..).zip(&carts) {
            self.teller.line(&format!("n{number} says: {cart}"))?;
        }
        let repaired = carts.iter().all(|cart| *cart == carts[0] && is_union(cart));
        self.teller.claim(repaired, "all three hold the merged cart", "carts that differ")
    }

    /// Reads until it can be read: after a split or a heal it takes a moment until the nodes have noticed.
    async fn read(&self, who: &Shopper, r: u8) -> Result<Seen, Failure> {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(seen) = who.look(KEY, r).await? {
                return Ok(seen);
            }
            if Instant::now() >= end {
                return Err(Failure::new(Exit::Retry, format!("the cart could not be read from {r} replicas")));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

fn is_union(cart: &Cart) -> bool {
    cart.contents().into_iter().eq([("apples", 3), ("cheese", 1), ("pears", 3)])
}

fn count(siblings: usize) -> String {
    if siblings == 1 { "1 sibling".into() } else { format!("{siblings} siblings") }
}
