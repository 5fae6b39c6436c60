//! Hostile modules against the merge host.
