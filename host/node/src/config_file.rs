//! Reads a configuration file, and refuses values with which a node cannot work.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;

use rejoin_core::shard::MAX_IN_FLIGHT;
use rejoin_proto::Address;
use rejoin_proto::client::{MAX_FIXTURE_BYTES, MAX_FIXTURES};
use rejoin_proto::peer::MAX_OFFERED;

use crate::bootstrap;
use crate::config::{Config, ConfigError};

/// The bytes that a journal segment may be set to.
const SEGMENT_BYTES: std::ops::RangeInclusive<u64> = 64 << 10..=1 << 30;
/// The bytes that the audit log may be set to.
const AUDIT_BYTES: std::ops::RangeInclusive<u64> = 64 << 10..=16 << 30;
/// The longest that requests may be allowed to wait before a shard.
const MAX_QUEUE_WAIT_MS: u32 = 60_000;
/// A process that compiles needs some memory for itself.
const LEAST_COMPILE_BYTES: u64 = 64 << 20;
/// A check of laws has the siblings of a bucket in memory, several times.
const MAX_SIBLING_SETS: usize = 4_096;
const MAX_SIBLING_BYTES: usize = 16 << 20;

const KEYS: &[&str] = &[
    "name",
    "listen",
    "admin",
    "admin_token",
    "data",
    "ca",
    "certificate",
    "key",
    "secret",
    "shards",
    "merge_threads",
    "merge_queue",
    "merge_tenant_threads",
    "merge_tenant_queue",
    "merge_bucket_threads",
    "merge_bucket_queue",
    "compile_threads",
    "compile_queue",
    "compile_tenant_queue",
    "compile_memory_bytes",
    "compile_seconds",
    "compile_program",
    "check_laws",
    "law_seconds",
    "law_sibling_sets",
    "law_sibling_bytes",
    "law_fixtures",
    "law_fixture_bytes",
    "sentinel_every",
    "sentinel_threshold",
    "compiled_bytes",
    "memo_bytes",
    "module_bytes",
    "inbox",
    "inbox_bytes",
    "tenant_inbox",
    "tenant_inbox_bytes",
    "queue_wait_ms",
    "in_flight_bytes",
    "in_flight",
    "max_clients",
    "max_new_clients",
    "clients_per_token",
    "hello_ms",
    "drain_ms",
    "timeout_ms",
    "max_timeout_ms",
    "max_skew_ms",
    "retry_window_ms",
    "retry_bytes",
    "receipt_bytes",
    "start_grace_ms",
    "start_wait_ms",
    "handoff_objects",
    "handoff_bytes",
    "handoff_pause_ms",
    "relief_min_ms",
    "relief_max_ms",
    "hedge_min_ms",
    "hedge_max_ms",
    "repair_one_in",
    "segment_bytes",
    "memtable_bytes",
    "cache_bytes",
    "free_space_floor",
    "audit_bytes",
    "encryption",
    "key_file",
    "key_command",
    "key_command_seconds",
    "off",
    "members",
    "probe_ms",
    "indirect_ms",
    "check_ms",
    "longest_check_ms",
    "request_ms",
    "suspect_phi",
    "down_phi",
    "fresh_ms",
    "settle_ms",
    "spread_step_ms",
    "forget_ms",
    "pause_ms",
    "exchange",
    "interval_ms",
    "max_walks",
    "floor_bytes",
    "max_bytes",
    "slowdown_percent",
    "piece_bytes",
    "paused",
    "dev_faults",
    "join",
    "bootstrap",
    "address",
    "zone",
    "capacity",
];

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// [`ConfigError`] names the key and what to do.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_path_buf(), source })?;
        Self::parse(&text, path.parent().unwrap_or(Path::new(".")))
    }

    /// Reads a text; its paths are relative to `base`.
    ///
    /// # Errors
    /// [`ConfigError`] names the key and what to do.
    pub fn parse(text: &str, base: &Path) -> Result<Self, ConfigError> {
        let invalid = |key: String, error: &dyn fmt::Display| ConfigError::Invalid {
            key,
            message: error.to_string().trim_end().to_owned(),
        };
        let document = toml::Deserializer::parse(text).map_err(|error| invalid("the file".into(), &error))?;
        let mut unknown = Vec::new();
        let mut track = serde_path_to_error::Track::new();
        let tracked = serde_path_to_error::Deserializer::new(document, &mut track);
        // A table that may be left out has a `?` of its own in the path.
        let note = |path: serde_ignored::Path<'_>| unknown.push(path.to_string().replace(".?", ""));
        let parsed: Result<Self, _> = serde_ignored::deserialize(tracked, note);
        if let Some(key) = unknown.into_iter().next() {
            let suggestion = nearest(key.rsplit('.').next().unwrap_or(&key));
            return Err(ConfigError::UnknownKey { key, suggestion });
        }
        let mut config = parsed.map_err(|error| {
            let key = track.path().to_string();
            invalid(if key == "." { "the file".into() } else { key }, &error)
        })?;
        for path in [&mut config.data, &mut config.ca, &mut config.certificate, &mut config.key, &mut config.secret] {
            *path = base.join(&*path);
        }
        config.compile_program = config.compile_program.map(|program| base.join(program));
        config.admin_token = config.admin_token.map(|tokens| base.join(tokens));
        config.encryption = config.encryption.map(|encryption| encryption.within(base));
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let invalid = |key: &str, message: &str| Err(ConfigError::Invalid { key: key.into(), message: message.into() });
        if !self.shards.is_power_of_two() || self.shards > 256 {
            return invalid("shards", "must be a power of two, 1 to 256");
        }
        if self.retry_bytes < 1 << 20 || self.in_flight_bytes < 1 << 20 || self.inbox_bytes < 1 << 20 {
            return invalid("retry_bytes, in_flight_bytes, inbox_bytes", "must be at least 1048576");
        }
        if !(1..=MAX_QUEUE_WAIT_MS).contains(&self.queue_wait_ms) {
            return invalid("queue_wait_ms", "must be 1 to 60000");
        }
        if self.tenant_inbox == 0 || self.tenant_inbox_bytes < 1 << 20 {
            return invalid("tenant_inbox, tenant_inbox_bytes", "must be at least 1, and 1048576 (1 MiB)");
        }
        if [self.merge_tenant_threads, self.merge_tenant_queue, self.compile_tenant_queue].contains(&0) {
            return invalid("merge_tenant_threads, merge_tenant_queue, compile_tenant_queue", "must be at least 1");
        }
        if self.inbox == 0 || self.in_flight == 0 || self.merge_queue == 0 || self.merge_threads == 0 {
            return invalid("inbox, in_flight, merge_queue, merge_threads", "must be at least 1");
        }
        if self.in_flight > MAX_IN_FLIGHT {
            return invalid("in_flight", "must be at most 32767");
        }
        if [self.merge_bucket_threads, self.merge_bucket_queue, self.compile_threads, self.compile_queue].contains(&0) {
            return invalid(
                "merge_bucket_threads, merge_bucket_queue, compile_threads, compile_queue",
                "must be at least 1",
            );
        }
        if self.compile_memory_bytes < LEAST_COMPILE_BYTES || self.compile_seconds == 0 {
            return invalid("compile_memory_bytes, compile_seconds", "must be at least 67108864 (64 MiB), and 1");
        }
        if !(1..=3_600).contains(&self.law_seconds) {
            return invalid("law_seconds", "must be 1 to 3600");
        }
        if self.law_sibling_sets > MAX_SIBLING_SETS || self.law_sibling_bytes > MAX_SIBLING_BYTES {
            return invalid("law_sibling_sets, law_sibling_bytes", "must be at most 4096, and 16777216");
        }
        if self.law_fixtures > MAX_FIXTURES || self.law_fixture_bytes > MAX_FIXTURE_BYTES {
            return invalid("law_fixtures, law_fixture_bytes", "must be at most 4096, and 4194304");
        }
        if self.max_clients == 0 || self.max_new_clients == 0 || self.clients_per_token == 0 {
            return invalid("max_clients, max_new_clients, clients_per_token", "must be at least 1");
        }
        if !(1..=60_000).contains(&self.hello_ms) || self.drain_ms > 600_000 {
            return invalid("hello_ms, drain_ms", "must be at most a minute and ten minutes, and hello_ms at least 1");
        }
        if !(1..=MAX_OFFERED).contains(&self.handoff_objects)
            || self.handoff_bytes == 0
            || self.handoff_pause_ms > 60_000
        {
            let message = "must be 1 to 1024, at least 1, and at most 60000 (a minute)";
            return invalid("handoff_objects, handoff_bytes, handoff_pause_ms", message);
        }
        if self.relief_min_ms == 0 || self.relief_max_ms < self.relief_min_ms || self.relief_max_ms > 60_000 {
            let message = "must be at least 1, and from relief_min_ms to 60000 (a minute)";
            return invalid("relief_min_ms, relief_max_ms", message);
        }
        if self.hedge_max_ms > 0 && self.hedge_max_ms < self.hedge_min_ms || self.hedge_max_ms > 60_000 {
            return invalid("hedge_min_ms, hedge_max_ms", "must be from hedge_min_ms to 60000 (a minute), or 0");
        }
        if !SEGMENT_BYTES.contains(&self.segment_bytes) {
            return invalid("segment_bytes", "must be 65536 to 1073741824 (64 KiB to 1 GiB)");
        }
        if !AUDIT_BYTES.contains(&self.audit_bytes) {
            return invalid("audit_bytes", "must be 65536 to 17179869184 (64 KiB to 16 GiB)");
        }
        if self.timeout_ms == 0 || self.max_timeout_ms < self.timeout_ms {
            return invalid("max_timeout_ms", "must be at least timeout_ms, and that at least 1");
        }
        self.members.check()?;
        self.exchange.check()?;
        self.encryption.as_ref().map_or(Ok(()), |encryption| encryption.check())?;
        self.check_faults(&self.listen, self.admin.as_ref())?;
        bootstrap::check(self)
    }

    /// Looks again at what depends on the IP addresses of this node's own host names.
    pub(crate) fn check_resolved(&self, listen: SocketAddr, admin: Option<SocketAddr>) -> Result<(), ConfigError> {
        self.check_faults(&listen.into(), admin.map(Address::from).as_ref())?;
        bootstrap::check_listen(self, &listen.into())
    }

    fn check_faults(&self, listen: &Address, admin: Option<&Address>) -> Result<(), ConfigError> {
        if self.dev_faults && !(loopback(listen) && admin.is_none_or(loopback)) {
            let message =
                "is for demonstrations and tests: it is refused unless listen and admin are on loopback".into();
            return Err(ConfigError::Invalid { key: "dev_faults".into(), message });
        }
        Ok(())
    }
}

/// Whether an address is this machine's own: resolvers give the name `localhost` no other one (RFC 6761).
fn loopback(address: &Address) -> bool {
    match address {
        Address::Ip(address) => address.ip().is_loopback(),
        Address::Host(host) => host.name() == "localhost" || host.name().ends_with(".localhost"),
    }
}

/// The key that is nearest to a misspelt one, if one is near enough.
fn nearest(word: &str) -> Option<String> {
    let best = KEYS.iter().map(|key| (strsim::levenshtein(word, key), *key)).min()?;
    (best.0 <= 2.max(word.len() / 3)).then(|| best.1.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = r#"
        name = "n1"
        listen = "127.0.0.1:7401"
        data = "data"
        ca = "ca.pem"
        certificate = "n1.pem"
        key = "n1.key"
        secret = "secret"
        [[bootstrap]]
        name = "n1"
        address = "127.0.0.1:7401"
    "#;

    fn error(change: impl Fn(String) -> String) -> String {
        Config::parse(&change(MINIMAL.into()), Path::new("/etc/rejoin")).expect_err("must be refused").to_string()
    }

    #[test]
    fn paths_are_relative_to_the_file_and_the_rest_has_defaults() {
        let config = Config::parse(MINIMAL, Path::new("/etc/rejoin")).unwrap();
        assert_eq!((config.data.as_path(), config.shards), (Path::new("/etc/rejoin/data"), 2));
        assert_eq!(config.bootstrap[0].zone.as_str(), "default");
    }

    #[test]
    fn an_unknown_key_is_named_with_the_nearest_one() {
        assert_eq!(error(|text| format!("shard = 4\n{text}")), "shard: there is no such key; did you mean shards?");
        let nested = error(|text| format!("{text}\nadress = \"x\""));
        assert!(nested.contains("did you mean address?"), "{nested}");
    }

    #[test]
    fn a_wrong_value_is_named_with_its_key() {
        let text = error(|text| text.replace("\"127.0.0.1:7401\"\n        data", "7\n        data"));
        assert!(text.starts_with("listen: "), "{text}");
        assert!(error(|text| format!("shards = 3\n{text}")).starts_with("shards: "));
        // As many answered reads may wait beside them, in a table of 65 536 places.
        let many = error(|text| format!("in_flight = 32768\n{text}"));
        assert!(many.starts_with("in_flight: ") && many.contains("32767"), "{many}");
    }

    #[test]
    fn the_times_of_membership_have_a_table_of_their_own() {
        let text = MINIMAL.replace("[[bootstrap]]", "[members]\ndown_phi = 12\n[[bootstrap]]");
        let config = Config::parse(&text, Path::new("/etc/rejoin")).unwrap();
        assert_eq!((config.members.down_phi, config.members.suspect_phi), (12, 3), "the rest keeps its defaults");
        let refused = error(|_| text.replace("down_phi = 12", "down_phi = 3"));
        assert!(refused.starts_with("members.down_phi: "), "{refused}");
        let misspelt = error(|_| text.replace("down_phi", "down_fi"));
        assert_eq!(misspelt, "members.down_fi: there is no such key; did you mean down_phi?");
    }

    #[test]
    fn the_pace_of_exchanges_has_a_table_of_its_own() {
        let text = MINIMAL.replace("[[bootstrap]]", "[exchange]\nmax_walks = 8\n[[bootstrap]]");
        let config = Config::parse(&text, Path::new("/etc/rejoin")).unwrap();
        assert_eq!(
            (config.exchange.max_walks, config.exchange.interval_ms),
            (8, 10_000),
            "the rest keeps its defaults"
        );
        let refused = error(|_| text.replace("max_walks = 8", "max_walks = 0"));
        assert!(refused.starts_with("exchange.max_walks: "), "{refused}");
        let misspelt = error(|_| text.replace("max_walks", "max_walk"));
        assert_eq!(misspelt, "exchange.max_walk: there is no such key; did you mean max_walks?");
    }

    #[test]
    fn the_keys_of_encryption_have_a_table_of_their_own() {
        let text = MINIMAL.replace("[[bootstrap]]", "[encryption]\nkey_file = \"keys\"\n[[bootstrap]]");
        let config = Config::parse(&text, Path::new("/etc/rejoin")).unwrap();
        assert_eq!(config.encryption.and_then(|encryption| encryption.key_file), Some("/etc/rejoin/keys".into()));
        let refused = error(|_| text.replace("key_file = \"keys\"", "off = true"));
        assert!(refused.starts_with("encryption.key_file, encryption.key_command: give one"), "{refused}");
        let misspelt = error(|_| text.replace("key_file", "keyfile"));
        assert_eq!(misspelt, "encryption.keyfile: there is no such key; did you mean key_file?");
    }

    #[test]
    fn the_times_of_relief_have_bounds_and_the_defaults_of_the_core() {
        let config = Config::parse(MINIMAL, Path::new("/etc/rejoin")).unwrap();
        let core = rejoin_core::shard::handoff::HandoffLimits::default();
        assert_eq!(
            (config.relief_min_ms * 1000, config.relief_max_ms * 1000),
            (core.relief_min_us, core.relief_max_us)
        );
        for times in ["relief_min_ms = 0", "relief_min_ms = 1001", "relief_max_ms = 99", "relief_max_ms = 60001"] {
            let refused = error(|text| format!("{times}\n{text}"));
            assert!(refused.starts_with("relief_min_ms, relief_max_ms: must be at least 1, "), "{times}: {refused}");
        }
        assert!(Config::parse(&format!("relief_max_ms = 100\n{MINIMAL}"), Path::new("/etc/rejoin")).is_ok());
    }

    #[test]
    fn the_times_of_hedged_reads_have_bounds_and_the_defaults_of_the_core() {
        let config = Config::parse(MINIMAL, Path::new("/etc/rejoin")).unwrap();
        let core = rejoin_core::shard::ReadLimits::default();
        assert_eq!(
            (config.hedge_min_ms * 1000, config.hedge_max_ms * 1000, config.repair_one_in),
            (core.hedge_min_us, core.hedge_max_us, core.all_one_in)
        );
        for times in ["hedge_min_ms = 201", "hedge_max_ms = 4", "hedge_max_ms = 60001"] {
            let refused = error(|text| format!("{times}\n{text}"));
            assert!(refused.starts_with("hedge_min_ms, hedge_max_ms: must be from hedge_min_ms to "), "{refused}");
        }
        let at_once = Config::parse(&format!("hedge_max_ms = 0\nrepair_one_in = 0\n{MINIMAL}"), Path::new("/"));
        assert_eq!(at_once.unwrap().hedge_max_ms, 0);
    }

    #[test]
    fn the_audit_log_has_bounds() {
        assert_eq!(Config::parse(MINIMAL, Path::new("/")).unwrap().audit_bytes, 64 << 20);
        for bytes in ["65535", "17179869185"] {
            let refused = error(|text| format!("audit_bytes = {bytes}\n{text}"));
            assert!(refused.starts_with("audit_bytes: must be 65536 to "), "{refused}");
        }
    }

    #[test]
    fn the_shares_of_a_tenant_have_least_values() {
        let config = Config::parse(MINIMAL, Path::new("/")).unwrap();
        assert!(config.merge_tenant_threads < config.merge_threads, "a thread is left to others");
        assert!(config.merge_bucket_threads < config.merge_tenant_threads, "and one of the tenant's");
        let least = [
            ("tenant_inbox = 0", "tenant_inbox, tenant_inbox_bytes: must be at least 1, and 1048576"),
            ("queue_wait_ms = 0", "queue_wait_ms: must be 1 to 60000"),
            ("queue_wait_ms = 60001", "queue_wait_ms: "),
            ("tenant_inbox_bytes = 1048575", "tenant_inbox, tenant_inbox_bytes: "),
            ("merge_tenant_threads = 0", "merge_tenant_threads, merge_tenant_queue, compile_tenant_queue: must be"),
            ("merge_tenant_queue = 0", "merge_tenant_threads, "),
            ("law_seconds = 0", "law_seconds: must be 1 to 3600"),
            ("law_sibling_sets = 4097", "law_sibling_sets, law_sibling_bytes: must be at most 4096, and 16777216"),
            ("law_sibling_bytes = 16777217", "law_sibling_sets, "),
            ("law_fixtures = 4097", "law_fixtures, law_fixture_bytes: must be at most 4096, and 4194304"),
            ("law_fixture_bytes = 4194305", "law_fixtures, "),
            ("compile_tenant_queue = 0", "merge_tenant_threads, "),
        ];
        for (line, says) in least {
            let refused = error(|text| format!("{line}\n{text}"));
            assert!(refused.starts_with(says), "{line}: {refused}");
        }
    }

    #[test]
    fn faults_are_refused_off_loopback() {
        let text = error(|text| format!("dev_faults = true\n{}", text.replacen("127.0.0.1:7401", "10.0.0.1:7401", 1)));
        assert!(text.starts_with("dev_faults: "), "{text}");
    }
}
