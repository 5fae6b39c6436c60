//! The store under crashes, damage and full disks.
