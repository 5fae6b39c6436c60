//! The options of quotas and of deletions.

use std::time::Duration;

use clap::Args;

use rejoin_client::admin::{Amounts, Limit, MAX_WEIGHT};

use crate::values::some_duration;

/// The limits of a tenant or bucket. Those of one kind, hard or soft, are set together: what is not given is not
/// limited any more.
#[derive(Args, Clone, Copy, Default, Debug)]
pub(crate) struct QuotaArgs {
    /// Objects in the whole cluster
    #[arg(long, value_name = "COUNT")]
    pub(crate) objects: Option<u64>,
    /// Bytes in the whole cluster, each object counted once
    #[arg(long)]
    pub(crate) bytes: Option<u64>,
    /// Requests a second at each node
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) requests_per_second: Option<u64>,
    /// Bytes of requests a second at each node
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) bytes_per_second: Option<u64>,
    /// Requests under way at each node
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) in_flight: Option<u64>,
    /// Siblings of an object
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..), conflicts_with = "soft")]
    pub(crate) siblings: Option<u64>,
    /// Fuel a second of merges at each node
    #[arg(long, value_name = "FUEL", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) fuel_per_second: Option<u64>,
    /// Only warn when a limit is reached
    #[arg(long)]
    pub(crate) soft: bool,
    /// End all limits, hard and soft ones
    #[arg(long, conflicts_with_all = ["objects", "bytes", "requests_per_second", "bytes_per_second", "in_flight"])]
    #[arg(conflicts_with_all = ["siblings", "fuel_per_second", "soft"])]
    pub(crate) none: bool,
}

/// The limits that only a tenant has.
#[derive(Args, Clone, Copy, Default, Debug)]
pub(crate) struct TenantQuotaArgs {
    /// Connections to each node
    #[arg(long, value_name = "COUNT", conflicts_with = "none")]
    pub(crate) connections: Option<u64>,
    /// Plugins
    #[arg(long, value_name = "COUNT", conflicts_with = "none")]
    pub(crate) plugins: Option<u64>,
    /// Bytes of plugins
    #[arg(long, value_name = "BYTES", conflicts_with = "none")]
    pub(crate) plugin_bytes: Option<u64>,
    /// Its share where tenants wait for each other, in relation to the others' (without one: 1). The limits stay
    #[arg(long, conflicts_with = "none", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_WEIGHT)))]
    pub(crate) weight: Option<u32>,
}

/// What options say of a quota.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum QuotaWish {
    /// It is shown only.
    Show,
    /// All limits end.
    End,
    /// The hard limits are these.
    Hard(Amounts),
    /// The soft limits are these.
    Soft(Amounts),
}

impl QuotaArgs {
    /// What these options say, with those that only a tenant has.
    pub(crate) fn wish(self, of_tenant: TenantQuotaArgs) -> QuotaWish {
        let mut amounts = Amounts::default();
        for (limit, most) in [
            (Limit::Objects, self.objects),
            (Limit::Bytes, self.bytes),
            (Limit::RequestsPerSecond, self.requests_per_second),
            (Limit::BytesPerSecond, self.bytes_per_second),
            (Limit::InFlight, self.in_flight),
            (Limit::Siblings, self.siblings),
            (Limit::FuelPerSecond, self.fuel_per_second),
            (Limit::Connections, of_tenant.connections),
            (Limit::Plugins, of_tenant.plugins),
            (Limit::PluginBytes, of_tenant.plugin_bytes),
        ] {
            amounts.set(limit, most);
        }
        match (self.none, self.soft, amounts.is_none()) {
            (true, ..) => QuotaWish::End,
            (false, false, true) => QuotaWish::Show,
            (false, false, false) => QuotaWish::Hard(amounts),
            (false, true, _) => QuotaWish::Soft(amounts),
        }
    }
}

/// How something is deleted.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct DeleteHow {
    /// For how long it can be restored; 0s removes its data at once
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = some_duration)]
    pub(crate) after: Duration,
    /// Only show what would be deleted
    #[arg(long, conflicts_with = "yes")]
    pub(crate) dry_run: bool,
    /// Do it, without asking
    #[arg(long)]
    pub(crate) yes: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_name_one_kind_of_limits_or_none() {
        let plain = QuotaArgs::default();
        let of = TenantQuotaArgs { plugins: Some(3), ..TenantQuotaArgs::default() };
        assert_eq!(plain.wish(TenantQuotaArgs::default()), QuotaWish::Show);
        assert_eq!(QuotaArgs { none: true, ..plain }.wish(TenantQuotaArgs::default()), QuotaWish::End);
        let limited = QuotaArgs { bytes: Some(9), ..plain };
        let mut amounts = Amounts::default();
        amounts.set(Limit::Bytes, Some(9));
        assert_eq!(limited.wish(TenantQuotaArgs::default()), QuotaWish::Hard(amounts));
        amounts.set(Limit::Plugins, Some(3));
        assert_eq!(QuotaArgs { soft: true, ..limited }.wish(of), QuotaWish::Soft(amounts));
        let nothing = QuotaArgs { soft: true, ..plain }.wish(TenantQuotaArgs::default());
        assert_eq!(nothing, QuotaWish::Soft(Amounts::default()), "the soft limits end");
    }
}
