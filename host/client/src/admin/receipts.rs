//! Folds: their receipts, what nodes know of a key, and the way back.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use rejoin_proto::client::{AdminRequest, Reply, RequestBody};
use rejoin_proto::receipt::{FoldReceipt, KeptReceipt, KeyReport, ReceiptQuery, Restoration, Restored};
use rejoin_proto::{Content, Entry, Name, PluginDigest, codec};
use rejoin_wire::Class;

use super::{Admin, FromNodes, admin_name};
#[cfg(doc)]
use crate::ErrorKind;
use crate::engine::{Engine, unexpected};
use crate::key::check_key;
use crate::routing::Target;
use crate::write::{HasBasis, Write, Written};
use crate::{Context, Result};

/// Which receipts are wanted. By default all of a bucket.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct ReceiptFilter {
    /// Those of this key.
    pub key: Option<Vec<u8>>,
    /// Those of folds by this plugin.
    pub plugin: Option<PluginDigest>,
    /// Those of folds since then, in milliseconds since 1970.
    pub since_ms: u64,
    /// With the contexts that [`Admin::undo_fold`] takes. The nodes' audit logs say who has asked for them.
    pub undo: bool,
}

impl Admin {
    /// The receipts of folds that the nodes keep of a bucket, each with its node, by the names of the nodes. The node
    /// that has folded keeps the receipt, for the time that the bucket says.
    ///
    /// ```no_run
    /// # use rejoin_client::admin::ReceiptFilter;
    /// # async fn run(client: rejoin_client::Client) -> rejoin_client::Result<()> {
    /// let found = client.admin().receipts("cart", ReceiptFilter::default()).await?;
    /// for (node, kept) in found.answers {
    ///     println!("{node}: {} inputs, {} fuel", kept.receipt.inputs.len(), kept.receipt.fuel_used);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// No node answers: then the error of one of them. [`ErrorKind::NotFound`] without such a bucket.
    pub async fn receipts(&self, bucket: &str, filter: ReceiptFilter) -> Result<FromNodes<Vec<(Name, KeptReceipt)>>> {
        let ReceiptFilter { key, plugin, since_ms, undo } = filter;
        let (bucket, key) = (admin_name(bucket)?, key.map(Bytes::from));
        let (first, timeout) = (ReceiptQuery { bucket, key, plugin, since_ms, from: None, undo }, self.timeout);
        let found = self.engine.each(|engine, target| all_pages(engine, target, first.clone(), timeout)).await?;
        let has_lost = |(node, of_node): &(Name, OfNode)| of_node.lost.then(|| node.clone());
        let lost = found.answers.iter().filter_map(has_lost).collect();
        let with_node =
            |(node, of_node): (Name, OfNode)| of_node.receipts.into_iter().map(move |kept| (node.clone(), kept));
        let found = found.with(|of_nodes| of_nodes.into_iter().flat_map(with_node).collect());
        Ok(FromNodes { lost, ..found })
    }

    /// Puts the inputs of a fold in the place of the folded value, each as a write of its own. What was written beside
    /// the fold stays. Where only a part of the fold is left, because it was written over by somebody who had seen the
    /// rest, or the rest is undone already, the inputs of that part are put. [`undo_plan`](super::undo_plan) says which
    /// inputs these are where folds were folded again.
    ///
    /// ```no_run
    /// # use rejoin_client::admin::ReceiptFilter;
    /// # async fn run(client: rejoin_client::Client) -> rejoin_client::Result<()> {
    /// let filter = ReceiptFilter { key: Some(b"ann".to_vec()), undo: true, ..ReceiptFilter::default() };
    /// let admin = client.admin();
    /// for (_, kept) in admin.receipts("cart", filter).await?.answers {
    ///     if let (true, Some(context)) = (kept.live, &kept.context) {
    ///         admin.undo_fold("cart", &kept.receipt, &kept.receipt.inputs, context).await?;
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::VersionConflict`] if nothing of the fold is left: nothing was written. Otherwise as for a put.
    pub async fn undo_fold(
        &self,
        bucket: &str,
        receipt: &FoldReceipt,
        inputs: &[Entry],
        context: &[u8],
    ) -> Result<Written> {
        let restored = |input: &Entry| Restored {
            content: input.content.clone(),
            expires: input.expires,
            dots: input.dots.clone(),
        };
        let restoration = Restoration { by: receipt.by, inputs: inputs.iter().map(restored).collect() };
        let content = Content::Value(codec::encode(&restoration).into());
        let context = Context::from_bytes(context.to_vec());
        let (engine, key) = (self.engine.clone(), &receipt.object.key[..]);
        Write::<HasBasis>::undo(engine, admin_name(bucket)?, (key, content), &context).timeout(self.timeout).await
    }

    /// What each node knows of a key, by the nodes' names: its own copy, which plugin merges, and merges that have
    /// failed there.
    ///
    /// ```no_run
    /// # async fn run(client: rejoin_client::Client) -> rejoin_client::Result<()> {
    /// for (node, report) in client.admin().explain("cart", b"ann").await?.answers {
    ///     println!("{node} has {} entries", report.copy.map_or(0, |copy| copy.entries.len()));
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Admin::receipts`].
    pub async fn explain(&self, bucket: &str, key: &[u8]) -> Result<FromNodes<Vec<(Name, KeyReport)>>> {
        check_key(key)?;
        let request = AdminRequest::KeyShow { bucket: admin_name(bucket)?, key: key.to_vec().into() };
        let request = RequestBody::Admin(request);
        let report = |(node, reply): (Name, Reply)| match reply {
            Reply::Key(report) => Ok((node, *report)),
            _ => Err(unexpected(node.as_str())),
        };
        self.engine.every(&request, self.timeout).await?.try_with(|replies| replies.into_iter().map(report).collect())
    }
}

/// What one node has said of receipts.
#[derive(Default)]
struct OfNode {
    receipts: Vec<KeptReceipt>,
    /// Whether it has lost a part of its disk that may have had others.
    lost: bool,
}

/// All receipts of one node, page by page.
async fn all_pages(engine: Arc<Engine>, target: Target, mut query: ReceiptQuery, timeout: Duration) -> Result<OfNode> {
    let mut found = OfNode::default();
    loop {
        let request = RequestBody::Admin(AdminRequest::Receipts(Box::new(query.clone())));
        let Reply::Receipts(page) = engine.at(&target, (Class::Request, &request), timeout).await? else {
            return Err(unexpected(target.name.as_str()));
        };
        found.receipts.extend(page.receipts);
        found.lost |= page.lost;
        query.from = page.next;
        if query.from.is_none() {
            return Ok(found);
        }
    }
}
