//! `tenant usage`.

use std::collections::BTreeMap;

use serde::Serialize;

use rejoin_client::admin::{BucketId, Stored, Usage};

use crate::commands::quota::Reached;
use crate::connect::{builder, connect};
use crate::failure::Failure;
use crate::global::GlobalArgs;
use crate::output::{Output, note};

/// What a tenant uses at all nodes that answered, as `--json` prints it.
#[derive(Serialize, Debug)]
struct TenantUsage {
    tenant: String,
    nodes: usize,
    requests: u64,
    refused: u64,
    bytes_in: u64,
    bytes_out: u64,
    fuel: u64,
    connections: u64,
    in_flight: u64,
    /// All copies together, and their bytes.
    stored_objects: u64,
    stored_bytes: u64,
    buckets: Vec<BucketUsage>,
    reached: Vec<Reached>,
}

#[derive(Serialize, Debug)]
struct BucketUsage {
    bucket: String,
    stored_objects: u64,
    stored_bytes: u64,
}

impl TenantUsage {
    fn new(tenant: &str, usage: &Usage, names: &BTreeMap<BucketId, String>) -> Self {
        let name = |id: &BucketId| names.get(id).cloned().unwrap_or_else(|| id.to_string());
        let bucket = |(id, stored): (&BucketId, &Stored)| BucketUsage {
            bucket: name(id),
            stored_objects: stored.objects,
            stored_bytes: stored.bytes,
        };
        let all = usage.stored();
        Self {
            tenant: tenant.into(),
            nodes: usage.nodes,
            requests: usage.requests,
            refused: usage.refused,
            bytes_in: usage.bytes_in,
            bytes_out: usage.bytes_out,
            fuel: usage.fuel,
            connections: usage.connections,
            in_flight: usage.in_flight,
            stored_objects: all.objects,
            stored_bytes: all.bytes,
            buckets: usage.buckets.iter().map(bucket).collect(),
            reached: usage.reached.iter().map(Reached::from).collect(),
        }
    }

    fn row(self) -> Vec<String> {
        let figures = [
            self.requests,
            self.refused,
            self.bytes_in,
            self.bytes_out,
            self.fuel,
            self.connections,
            self.in_flight,
            self.stored_objects,
            self.stored_bytes,
        ];
        [self.tenant].into_iter().chain(figures.iter().map(ToString::to_string)).collect()
    }
}

/// Shows what one tenant uses, or each that the token may see.
pub(crate) async fn run(global: &GlobalArgs, out: Output, name: Option<String>) -> Result<(), Failure> {
    let tenants = match name {
        Some(name) => vec![name],
        None => {
            let all = connect(global).await?.admin().tenants().await?;
            all.into_iter().map(|tenant| tenant.name.to_string()).collect()
        }
    };
    let mut usages = Vec::with_capacity(tenants.len());
    for tenant in tenants {
        let admin = builder(global)?.tenant(&tenant).connect().await?.admin();
        let names = admin.buckets().await?.into_iter().map(|bucket| (bucket.id, bucket.name.to_string())).collect();
        usages.push(TenantUsage::new(&tenant, &admin.usage().await?, &names));
    }
    if out.json {
        return out.json(&usages);
    }
    for (usage, reached) in usages.iter().flat_map(|usage| usage.reached.iter().map(move |reached| (usage, reached))) {
        note(format!("tenant {} has reached {}", usage.tenant, reached.text()));
    }
    let header = [
        "tenant",
        "requests",
        "refused",
        "bytes in",
        "bytes out",
        "fuel",
        "connections",
        "under way",
        "copies",
        "bytes",
    ];
    out.table(&header, usages.into_iter().map(TenantUsage::row).collect())
}
