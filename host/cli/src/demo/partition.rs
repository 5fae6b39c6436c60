//! The steps of the demo: three nodes share a cart, one is cut off, both sides change the cart, the cut heals, the
//! carts merge.

use std::time::Duration;

use tokio::time::Instant;

use rejoin_client::Profile;
use rejoin_client::admin::PluginInfo;

use crate::cart;
use crate::demo::cart_client::{Cart, CartClient, Seen};
use crate::demo::printer::Printer;
use crate::demo::steps;
use crate::dev::wait_connected;
use crate::failure::Failure;
use crate::http::post;
use crate::processes::Processes;

/// The key of the shared cart.
const KEY: &str = "family";
/// The time for the cluster to notice a cut or a heal.
const TIMEOUT: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(50);

/// The demo and its people: Ann on one side of the cut, Bob on the other, and Eve, who only reads, at the node between.
pub(super) struct PartitionDemo<'a> {
    processes: &'a mut Processes,
    printer: Printer,
    plugin: PluginInfo,
    ann: CartClient,
    eve: CartClient,
    bob: CartClient,
}

impl PartitionDemo<'_> {
    /// Runs all steps.
    ///
    /// # Errors
    /// The first claim that does not hold, or a failure of the cluster.
    pub(super) async fn run(processes: &mut Processes, printer: Printer) -> Result<(), Failure> {
        let mut partition = PartitionDemo::begin(processes, printer).await?;
        partition.before().await?;
        partition.split().await?;
        partition.shop_apart().await?;
        partition.heal().await?;
        partition.merge().await?;
        partition.repaired().await
    }

    async fn begin(processes: &mut Processes, printer: Printer) -> Result<PartitionDemo<'_>, Failure> {
        let client = steps::begin(processes, &printer, "A cluster of three").await?;
        let plugin = cart::set_up(&client, 3).await?;
        printer.line(&format!("bucket cart keeps 3 copies and merges with {} {}", plugin.name, plugin.version))?;
        printer.line(&format!("  (component {})", plugin.digest))?;
        let profile = Profile::load(processes.cluster.profile())?;
        let nodes = processes.cluster.nodes().to_vec();
        let ann = CartClient::at(&profile, nodes[0].address, "ann").await?;
        let eve = CartClient::at(&profile, nodes[1].address, "eve").await?;
        let bob = CartClient::at(&profile, nodes[2].address, "bob").await?;
        Ok(PartitionDemo { processes, printer, plugin, ann, eve, bob })
    }

    async fn before(&mut self) -> Result<(), Failure> {
        self.printer.chapter("Baseline")?;
        let cart = self.ann.edit(KEY, 3, |cart, me| {
            cart.add(me, "apples", 2);
            cart.add(me, "bread", 1);
        });
        let cart = cart.await?;
        self.printer.line(&format!("Ann, at n1, puts {cart} into the family's cart"))?;
        let (ann, bob) = (self.read(&self.ann, 1).await?, self.read(&self.bob, 1).await?);
        let same = ann.cart == cart && bob.cart == cart;
        self.printer.claim(same, "n1 and n3 have the same cart", &format!("{} and {}", ann.cart, bob.cart))
    }

    async fn split(&mut self) -> Result<(), Failure> {
        self.printer.chapter("The network splits")?;
        for (me, other) in [(0, 2), (1, 2), (2, 0), (2, 1)] {
            let nodes = self.processes.cluster.nodes();
            post(nodes[me].admin, &format!("/faults/cut/{}", nodes[other].name())).await?;
        }
        self.printer.line("n3 is cut off:  n1 ── n2   ╳   n3")
    }

    async fn shop_apart(&mut self) -> Result<(), Failure> {
        self.printer.chapter("Both sides go on shopping (w = 1)")?;
        let left = self.ann.edit(KEY, 1, |cart, me| {
            cart.remove("bread");
            cart.add(me, "pears", 3);
        });
        let left = left.await?;
        self.printer.line("Ann, at n1, takes the bread out that she had seen, and adds 3 pears")?;
        let right = self.bob.edit(KEY, 1, |cart, me| {
            cart.add(me, "apples", 1);
            cart.add(me, "cheese", 1);
        });
        let right = right.await?;
        self.printer.line("Bob, at n3, knows nothing of that, and adds 1 apple and 1 cheese")?;
        let (ann, bob) = (self.read(&self.ann, 1).await?.cart, self.read(&self.bob, 1).await?.cart);
        self.printer.line(&format!("n1 says: {ann}"))?;
        self.printer.line(&format!("n3 says: {bob}"))?;
        let seen = format!("{ann} and {bob}");
        let apart = ann == left
            && bob == right
            && ann.quantity("bread") == 0
            && bob.quantity("bread") == 1
            && bob.quantity("pears") == 0;
        self.printer.claim(apart, "both sides took writes, and differ", &seen)
    }

    async fn heal(&mut self) -> Result<(), Failure> {
        self.printer.chapter("The network heals")?;
        for node in self.processes.cluster.nodes() {
            post(node.admin, "/faults/heal").await?;
        }
        wait_connected(&self.processes.cluster).await?;
        self.printer.line("n1 ── n2 ── n3")
    }

    async fn merge(&mut self) -> Result<(), Failure> {
        self.printer.chapter("A read of all three (r = 3)")?;
        let seen = self.read(&self.eve, 3).await?;
        self.printer.line(&format!("Eve, at n2, finds {} and sees: {}", count(seen.siblings), seen.cart))?;
        let (name, digest) = seen.merged_by.clone().unwrap_or_default();
        let expected = (self.plugin.name.to_string(), self.plugin.digest.to_string());
        let by = format!("they were merged by plugin {name}, component {}…", digest.get(..16).unwrap_or_default());
        self.printer.claim((name, digest) == expected, &by, "another plugin, or none")?;
        let shown = seen.cart.to_string();
        self.printer.claim(
            is_union(&seen.cart),
            "everything both have added is there: 3 apples, 3 pears, 1 cheese",
            &shown,
        )?;
        self.printer.claim(seen.cart.quantity("bread") == 0, "the bread that Ann took out stays out", &shown)?;
        seen.cart.writers().iter().try_for_each(|line| self.printer.line(line))
    }

    /// The read repaired the replicas: each node returns its own copy.
    async fn repaired(&mut self) -> Result<(), Failure> {
        self.printer.chapter("Each node's own copy (r = 1)")?;
        let end = Instant::now() + TIMEOUT;
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
            self.printer.line(&format!("n{number} says: {cart}"))?;
        }
        let repaired = carts.iter().all(|cart| *cart == carts[0] && is_union(cart));
        self.printer.claim(repaired, "all three hold the merged cart", "carts that differ")
    }

    /// Reads, and retries for a while: nodes need a moment to notice a cut or a heal.
    async fn read(&self, who: &CartClient, r: u8) -> Result<Seen, Failure> {
        let not_yet = format!("the cart could not be read from {r} replicas");
        steps::until(TIMEOUT, &not_yet, async || who.read(KEY, r).await).await
    }
}

fn is_union(cart: &Cart) -> bool {
    cart.contents().into_iter().eq([("apples", 3), ("cheese", 1), ("pears", 3)])
}

fn count(siblings: usize) -> String {
    if siblings == 1 { "1 sibling".into() } else { format!("{siblings} siblings") }
}
