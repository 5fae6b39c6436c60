//! Remembers: a hash-chained journal and an LSM tree behind the core's Store port.
