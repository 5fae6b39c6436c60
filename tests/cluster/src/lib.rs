//! Real processes: kill -9, restarts, partitions, hostile certificates.
