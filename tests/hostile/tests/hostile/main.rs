//! Hostile components against the parts of the merge host. One binary, so that wasmtime is linked once and all of it
//! runs side by side. `corpus` is another one, because it measures the memory of its process.

mod bombs;
mod build;
mod calls;
mod modules;
mod pool;
mod pushed;
mod sampled;
