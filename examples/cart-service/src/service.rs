//! The service: carts by user, in a bucket that the cart plugin merges.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use rejoin_client::{Bucket, Client, Codec, CodecError, ErrorKind, Result};
use rejoin_plugin_cart::Cart;

/// The codec of carts. Service and plugin share the type, so they agree on the bytes.
pub(crate) struct Carts;

impl Codec for Carts {
    type Value = Cart;

    fn encode(cart: &Cart) -> Result<Vec<u8>, CodecError> {
        Ok(cart.to_json())
    }

    fn decode(bytes: &[u8]) -> Result<Cart, CodecError> {
        Cart::parse(bytes).map_err(CodecError::new)
    }
}

/// Reads and changes carts as one writer.
///
/// A writer numbers its adds, so its name must be unique: that of a device, a process or a session, with a random part.
/// The service keeps what it has written to each cart, so that a read from a stale replica does not make it use a
/// number twice. It keeps that for its whole life; a long-running service would begin new sessions from time to time.
pub(crate) struct CartService {
    carts: Bucket<Carts>,
    writer: String,
    written: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<Cart>>>>,
}

impl CartService {
    /// A service on that bucket, with a random writer's name that begins with `who`.
    pub(crate) fn new(client: &Client, bucket: &str, who: &str) -> Result<Self> {
        let writer = format!("{who}-{:08x}", rand::random::<u32>());
        Ok(Self { carts: client.bucket(bucket)?, writer, written: Mutex::default() })
    }

    /// The writer's name.
    pub(crate) fn writer(&self) -> &str {
        &self.writer
    }

    /// The bucket of the carts.
    pub(crate) fn carts(&self) -> &Bucket<Carts> {
        &self.carts
    }

    /// Reads a user's cart.
    pub(crate) async fn show(&self, user: &str) -> Result<Cart> {
        Ok(self.carts.get(user).await?.into_value()?.unwrap_or_default())
    }

    /// Adds a quantity of an item.
    pub(crate) async fn add(&self, user: &str, item: &str, quantity: u32) -> Result<Cart> {
        self.change(user, |cart, writer| cart.add(writer, item, quantity)).await
    }

    /// Removes all adds of an item that a read returns.
    pub(crate) async fn remove(&self, user: &str, item: &str) -> Result<Cart> {
        self.change(user, |cart, _| cart.remove(item)).await
    }

    /// Changes a cart and returns the written one. Changes of one cart by this writer run one after the other.
    async fn change(&self, user: &str, edit: impl Fn(&mut Cart, &str) + Send + Sync) -> Result<Cart> {
        let written = self.written(user);
        let mut written = written.lock().await;
        let mut made = Cart::default();
        let update = self.carts.update(user, |read| {
            let mut cart = read.unwrap_or_default();
            cart.join(&written);
            edit(&mut cart, &self.writer);
            made = cart.clone();
            cart
        });
        let outcome = update.await;
        // A write with an unknown outcome may be stored, so its numbers are used too.
        if outcome.as_ref().map_or_else(|error| error.kind() == ErrorKind::Unknown, |_| true) {
            *written = made;
        }
        outcome.map(|updated| updated.value)
    }

    fn written(&self, user: &str) -> Arc<tokio::sync::Mutex<Cart>> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(written.entry(user.to_string()).or_default())
    }
}

/// Prints a cart, an item a line.
pub(crate) fn print(user: &str, cart: &Cart) {
    let items = cart.items();
    if items.is_empty() {
        println!("{user}: the cart is empty");
    }
    for (item, quantity) in items {
        println!("{user}: {quantity} × {item}");
    }
}
