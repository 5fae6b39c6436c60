//! One writer's edits, one after the other.

use crate::cart::{BadCart, Cart};

/// A session: a writer with a name of its own, and what it has written so far.
///
/// A session may read from a replica that has not got its last write yet. It adds what it knows to what it reads, so
/// that it never uses a tag twice and never takes its own last add for removed.
///
/// ```
/// use rejoin_plugin_cart::Session;
///
/// let mut session = Session::new("ann-7f3a");
/// let first = session.edit(None, |cart, me| cart.add(me, "apples", 3))?;
/// // Another replica does not have it yet, and nothing is lost:
/// let second = session.edit(None, |cart, me| cart.add(me, "pears", 1))?;
/// assert_eq!(second, br#"{"clock":{"ann-7f3a":2},"items":{"apples":{"ann-7f3a:1":3},"pears":{"ann-7f3a:2":1}}}"#);
/// # Ok::<(), rejoin_plugin_cart::BadCart>(())
/// ```
#[derive(Clone, Debug)]
pub struct Session {
    writer: String,
    known: Cart,
}

impl Session {
    /// A session under a name that no other session has or had: a person's or device's name and something random.
    #[must_use]
    pub fn new(writer: impl Into<String>) -> Self {
        Self { writer: writer.into(), known: Cart::default() }
    }

    /// Edits what was read (nothing, if the key holds nothing) and gives the value to write. The edit is given the
    /// writer's name for [`Cart::add`]. It is remembered even if the write then fails: the next one carries it.
    ///
    /// # Errors
    /// [`BadCart`] if what was read is none; nothing is edited then.
    pub fn edit(&mut self, read: Option<&[u8]>, edit: impl FnOnce(&mut Cart, &str)) -> Result<Vec<u8>, BadCart> {
        let mut cart = read.map_or_else(|| Ok(Cart::default()), Cart::parse)?;
        cart.join(&self.known);
        edit(&mut cart, &self.writer);
        self.known = cart;
        Ok(self.known.to_json())
    }
}
