//! The directions between the crates, and the style of the house.
