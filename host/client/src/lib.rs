//! The Rust SDK of Rejoin: layout-aware, always carrying contexts, with a retry budget.
