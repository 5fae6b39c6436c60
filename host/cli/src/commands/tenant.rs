//! `tenant create|list|show|usage|quota|delete|restore`; [`signing`] has `tenant signers`.

use serde::Serialize;

use rejoin_client::admin::TenantInfo;

use crate::args::TenantCommand;
use crate::commands::bucket::names;
use crate::commands::{delete, quota, signing, usage};
use crate::connect::{builder, connect};
use crate::failure::{Exit, Failure};
use crate::global::GlobalArgs;
use crate::output::{Output, note};

/// A tenant, as `--json` prints it.
#[derive(Serialize, Debug)]
struct Tenant {
    name: String,
    id: String,
    version: u64,
    /// Until when it can be restored, if it is deleted.
    reap_ms: Option<u64>,
    /// For people.
    #[serde(skip)]
    state: String,
}

impl From<&TenantInfo> for Tenant {
    fn from(tenant: &TenantInfo) -> Self {
        Self {
            name: tenant.name.to_string(),
            id: tenant.id.to_string(),
            version: tenant.version,
            reap_ms: tenant.deleted.map(|deleted| deleted.reap_ms),
            state: delete::state(tenant.deleted),
        }
    }
}

/// `tenant show`.
#[derive(Serialize, Debug)]
struct Shown {
    #[serde(flatten)]
    tenant: Tenant,
    buckets: Vec<String>,
    plugins: Vec<String>,
    /// Those that are not revoked.
    tokens: Vec<String>,
    /// The limits that are reached.
    reached: Vec<quota::Reached>,
}

pub(crate) async fn run(global: &GlobalArgs, out: Output, command: TenantCommand) -> Result<(), Failure> {
    match command {
        TenantCommand::Create { name } => {
            let tenant = connect(global).await?.admin().create_tenant(&name).await?;
            if !tenant.behind.is_empty() {
                note(format!("not yet known to {}: a node learns of it when it connects", names(&tenant.behind)));
            }
            if out.json {
                return out.json(&Tenant::from(&tenant));
            }
            note(format!("tenant {name} made; it has nothing yet"));
            note(format!(
                "next: `rejoin token create NAME --scope tenant-admin --tenant {name}` for its administrator"
            ));
            Ok(())
        }
        TenantCommand::List => {
            let tenants = connect(global).await?.admin().tenants().await?;
            let rows: Vec<Tenant> = tenants.iter().map(Tenant::from).collect();
            if out.json {
                return out.json(&rows);
            }
            let row = |tenant: Tenant| vec![tenant.name, tenant.id, tenant.state];
            out.table(&["tenant", "id", "state"], rows.into_iter().map(row).collect())
        }
        TenantCommand::Show { name } => show(global, out, &name).await,
        TenantCommand::Delete { name, how } => delete::tenant(global, out, &name, how).await,
        TenantCommand::Usage { name } => usage::run(global, out, name).await,
        TenantCommand::Quota { name, limits, of_tenant } => {
            let admin = builder(global)?.tenant(&name).connect().await?.admin();
            quota::run(&admin, out, None, (limits.wish(of_tenant), of_tenant.weight)).await
        }
        TenantCommand::Signers { name, command } => signing::signers(global, out, &name, command).await,
        TenantCommand::Restore { name } => {
            let tenant = connect(global).await?.admin().restore_tenant(&name).await?;
            delete::restored("tenant", &name, &tenant.behind);
            Ok(())
        }
    }
}

async fn show(global: &GlobalArgs, out: Output, name: &str) -> Result<(), Failure> {
    let admin = builder(global)?.tenant(name).connect().await?.admin();
    let tenant = admin.tenants().await?.into_iter().find(|tenant| tenant.name.as_str() == name);
    let Some(tenant) = tenant else {
        return Err(Failure::new(Exit::Negative, format!("there is no tenant {name}")));
    };
    let (buckets, plugins, tokens) = (admin.buckets().await?, admin.plugins().await?, admin.tokens().await?);
    let reached = admin.usage().await?.reached;
    let kept = plugins.iter().filter(|plugin| plugin.deleted.is_none());
    let valid = tokens.iter().filter(|token| !token.revoked);
    let shown = Shown {
        tenant: Tenant::from(&tenant),
        buckets: buckets.iter().map(|bucket| bucket.name.to_string()).collect(),
        plugins: kept.map(|plugin| plugin.name.to_string()).collect(),
        tokens: valid.map(|token| token.name.to_string()).collect(),
        reached: reached.iter().map(quota::Reached::from).collect(),
    };
    if out.json {
        return out.json(&shown);
    }
    let list = |names: Vec<String>| if names.is_empty() { "-".to_owned() } else { names.join(", ") };
    let rows = [
        ("name", shown.tenant.name),
        ("id", shown.tenant.id),
        ("state", shown.tenant.state),
        ("buckets", list(shown.buckets)),
        ("plugins", list(shown.plugins)),
        ("tokens", list(shown.tokens)),
        ("reached", list(shown.reached.iter().map(quota::Reached::text).collect())),
    ];
    out.table(&["tenant", ""], rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect())
}
