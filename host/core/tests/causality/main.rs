//! The algebra of an object, over states that can be reached: replicas with actors, stale contexts, deletes, lost
//! messages, folds.

mod laws;
mod model;
mod stories;
