//! A shopping cart that never resurrects a removed item.
