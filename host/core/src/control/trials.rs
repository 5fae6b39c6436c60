//! Plugins on trial in a bucket, when its record is changed: the canary and the shadow.

use rejoin_proto::catalog::{Activation, BucketProps};
use rejoin_proto::trial::{Canary, Shadow};
use rejoin_proto::{ErrorCode, ErrorReply, Hlc, PluginDigest, TenantId};

use super::Control;

impl Control {
    /// Properties with what the catalog knows of the plugins on trial, and since when they are. A trial that the bucket
    /// had already ends when its plugin becomes the one that merges, or when there is none left to compare it with; a
    /// canary ends with any change of the plugin that it is the next version of.
    ///
    /// Which of the two merges a key changes with the share. The one that gains keys replaces the other one for these
    /// from now on, and so folds late: what it merges of them can be taken back.
    pub(super) fn with_trials(
        &self,
        tenant: TenantId,
        mut props: BucketProps,
        old: Option<&BucketProps>,
        stamp: Hlc,
    ) -> Result<BucketProps, ErrorReply> {
        let digest = |active: Option<Activation>| active.map(|active| active.plugin);
        let (active, before) = (digest(props.plugin), digest(old.and_then(|old| old.plugin)));
        if let Some(wanted) = props.canary {
            let plugin = wanted.plugin.plugin;
            let known = old.and_then(|old| old.canary).filter(|known| known.plugin.plugin == plugin);
            props.canary = match known {
                Some(_) if active != before || active == Some(plugin) => None,
                Some(known) => {
                    // Rule: grown shares fold late.
                    let grows = wanted.percent > known.percent;
                    let since = if grows { stamp } else { known.plugin.since };
                    Some(Canary { plugin: Activation { since, ..known.plugin }, percent: wanted.percent })
                }
                None => {
                    on_trial(active, plugin)?;
                    // Rule: canaries replace. A bucket has a canary only beside the plugin whose keys it takes over.
                    Some(Canary { plugin: self.activation((tenant, plugin), true, stamp)?, percent: wanted.percent })
                }
            };
        }
        let share = |canary: Option<Canary>| canary.map_or(0, |canary| canary.percent);
        let shrinks = share(props.canary) < share(old.and_then(|old| old.canary));
        // Rule: returned keys fold late.
        if let Some(plugin) = props.plugin.filter(|_| shrinks && active == before) {
            props.plugin = Some(Activation { since: stamp, replaces: true, ..plugin });
        }
        if let Some(wanted) = props.shadow {
            let known = old.and_then(|old| old.shadow).filter(|known| known.plugin == wanted.plugin);
            props.shadow = match known {
                Some(_) if active.is_none() || active == Some(wanted.plugin) => None,
                Some(known) => Some(Shadow { percent: wanted.percent, ..known }),
                None => {
                    on_trial(active, wanted.plugin)?;
                    self.activation((tenant, wanted.plugin), true, stamp)?;
                    Some(Shadow { since: stamp, ..wanted })
                }
            };
        }
        Ok(props)
    }
}

/// Checks that a plugin can be tried beside the active one.
fn on_trial(active: Option<PluginDigest>, plugin: PluginDigest) -> Result<(), ErrorReply> {
    let message = match active {
        None => {
            "the bucket has no plugin that another one could be tried beside: `rejoin plugin activate BUCKET PLUGIN` \
             gives it one"
                .into()
        }
        Some(active) if active == plugin => {
            alloc::format!("plugin {plugin} merges the bucket already: there is nothing to try")
        }
        Some(_) => return Ok(()),
    };
    Err(ErrorReply::new(ErrorCode::BadRequest, message))
}
