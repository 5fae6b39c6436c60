//! Where the parts meet: shards, sessions, peers, admission, the admin port and metrics.
