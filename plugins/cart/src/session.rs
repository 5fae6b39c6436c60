//! The edits of one writer.

use crate::cart::{BadCart, Cart};

/// A writer with a unique name, and the cart it has written last.
///
/// A session may read from a replica that does not have its last write yet. It joins its own cart to the one it reads,
/// so that it never uses a tag twice and never takes its own last add for removed.
///
/// ```
/// use rejoin_plugin_cart::Session;
///
/// let mut session = Session::new("ann-7f3a");
/// let first = session.edit(None, |cart, me| cart.add(me, "apples", 3))?;
/// // A replica that does not have the first edit yet is no problem:
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
    /// A session under a name that no other session has or had, such as a user's name and a random suffix.
    #[must_use]
    pub fn new(writer: impl Into<String>) -> Self {
        Self { writer: writer.into(), known: Cart::default() }
    }

    /// Edits the value that was read (`None` for a key without a value), and returns the value to write. The edit gets
    /// the writer's name for [`Cart::add`]. The session remembers the edit even if the write fails: the next one
    /// carries it.
    ///
    /// # Errors
    /// [`BadCart`] if the value is no cart, or if the plugin would refuse the edited one. The session is then
    /// unchanged.
    pub fn edit(&mut self, read: Option<&[u8]>, edit: impl FnOnce(&mut Cart, &str)) -> Result<Vec<u8>, BadCart> {
        let mut cart = read.map_or_else(|| Ok(Cart::default()), Cart::parse)?;
        cart.join(&self.known);
        edit(&mut cart, &self.writer);
        cart.check()?;
        self.known = cart;
        Ok(self.known.to_json())
    }
}
