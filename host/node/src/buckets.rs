//! Changes of a bucket. Its copies (n, and whether other nodes stand in for owners) are in the layouts, all else is in
//! its record. An operator sees both as one bucket with one version.

use std::sync::Arc;
use std::time::Duration;

use rejoin_core::control::CatalogChange;
use rejoin_core::ring::{CopiesChange, RingCommand};
use rejoin_core::view::{Bucket, ClusterView};
use rejoin_proto::catalog::{BucketProps, Quorum, Record, RecordBody};
use rejoin_proto::client::{RecordKind, Reply};
use rejoin_proto::layout::MAX_OWNERS;
use rejoin_proto::{BucketCopies, ErrorCode, ErrorReply, Name, TenantId};

use crate::context::NodeContext;
use crate::layouts::command_of;
use crate::operator::{change, records};
use crate::readiness;

/// Makes a bucket, unless nodes that are alive are not ready for its plugins.
pub(crate) async fn create(
    ctx: &Arc<NodeContext>,
    tenant: TenantId,
    (name, props): (Name, BucketProps),
    wait: Duration,
) -> Reply {
    // Of a bucket that there is the catalog says so.
    let exists = ctx.cluster_view().bucket_named(tenant, &name).is_some();
    let left = match exists {
        true => Ok(wait),
        false => readiness::check(ctx, tenant, (None, &props), wait).await,
    };
    match left {
        Ok(left) => change(ctx, left, CatalogChange::BucketCreate(tenant, name, props)).await,
        Err(refusal) => Reply::Error(refusal),
    }
}

/// Gives a bucket other properties, if it is still at that version. Other copies take the four steps of a change of
/// layout, which have begun when this answers. Unless `force`, it gets no plugin for which nodes that are alive are not
/// ready.
pub(crate) async fn set(
    ctx: &Arc<NodeContext>,
    tenant: TenantId,
    (name, version, props, force): (Name, u64, BucketProps, bool),
    wait: Duration,
) -> Reply {
    let view = ctx.cluster_view();
    let Some(bucket) = view.bucket_named(tenant, &name) else {
        // It says that there is none.
        return change(ctx, wait, CatalogChange::BucketSet(tenant, name, version, props)).await;
    };
    let seen = view.layout().copies_of(bucket.id).map_or(0, |copies| copies.change);
    let shown = bucket.version + u64::from(seen);
    if version != shown {
        let why = format!("bucket {name} is at version {shown}, not {version}: look at it again, then set it");
        return Reply::Error(ErrorReply::new(ErrorCode::VersionConflict, why));
    }
    let (n, sloppy) = (props.n, props.sloppy);
    if (n, sloppy) == (bucket.props.n, bucket.props.sloppy) {
        let left = match force {
            true => Ok(wait),
            false => readiness::check(ctx, tenant, (Some(&bucket.props), &props), wait).await,
        };
        return match left {
            Ok(left) => change(ctx, left, CatalogChange::BucketSet(tenant, name, bucket.version, props)).await,
            Err(refusal) => Reply::Error(refusal),
        };
    }
    if let Err(why) = may_change(bucket, &props) {
        return Reply::Error(ErrorReply::new(ErrorCode::BadRequest, why));
    }
    let wanted = CopiesChange { bucket: bucket.id, name: name.clone(), seen, n, sloppy };
    match command_of(ctx, RingCommand::SetCopies(wanted)).await {
        Reply::LayoutChanged(_) => {}
        refused => return refused,
    }
    let is_it = |record: &Record| matches!(&record.body, RecordBody::Bucket { id, .. } if *id == bucket.id);
    let known = records(ctx, RecordKind::Bucket, tenant).await.unwrap_or_default();
    match known.into_iter().find(is_it) {
        Some(record) => {
            let copies = BucketCopies { bucket: bucket.id, change: seen + 1, n, sloppy };
            Reply::Changed { record: with(record, Some(&copies)), behind: Vec::new() }
        }
        None => Reply::Error(ErrorReply::new(ErrorCode::Stopping, "the node is stopping; look at the bucket again")),
    }
}

/// Whether a bucket may have the copies of these properties.
fn may_change(bucket: &Bucket, wanted: &BucketProps) -> Result<(), String> {
    let (n, name, props) = (wanted.n, &bucket.name, &bucket.props);
    let with_its_copies = BucketProps { n, sloppy: wanted.sloppy, ..props.clone() };
    if with_its_copies != *wanted {
        return Err(
            "n, --strict and --sloppy are changed in steps, and so by themselves: give the other properties in \
                    a command of their own"
                .into(),
        );
    }
    if !(1..=MAX_OWNERS).contains(&usize::from(n)) {
        return Err(format!("n must be 1 to {MAX_OWNERS}"));
    }
    for (option, quorum) in [("r", props.r), ("w", props.w), ("pr", props.pr), ("pw", props.pw)] {
        if let Quorum::Count(count) = quorum
            && count > n
        {
            return Err(format!(
                "bucket {name} has {option} = {count}, which {n} copies could never reach: set it first, with `rejoin \
                 bucket set {name} --{option} quorum` or a number up to {n}"
            ));
        }
    }
    if props.zones > n {
        return Err(format!(
            "bucket {name} asks for acknowledgements from {} zones, which {n} copies could never be in: set that first, \
             with `rejoin bucket set {name} --zones` and a number up to {n}",
            props.zones
        ));
    }
    Ok(())
}

/// A record as an operator sees it: a bucket with its copies in the newest layout.
pub(crate) fn shown(view: &ClusterView, record: Record) -> Record {
    match &record.body {
        RecordBody::Bucket { id, .. } => {
            let copies = view.layout().copies_of(*id).copied();
            with(record, copies.as_ref())
        }
        _ => record,
    }
}

fn with(mut record: Record, copies: Option<&BucketCopies>) -> Record {
    if let (RecordBody::Bucket { props, .. }, Some(copies)) = (&mut record.body, copies) {
        (props.n, props.sloppy) = (copies.n, copies.sloppy);
        record.version += u64::from(copies.change);
    }
    record
}
