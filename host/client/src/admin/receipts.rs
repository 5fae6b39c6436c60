//! Folds: their receipts, what nodes know of a key, and the way back.

use bytes::Bytes;

use rejoin_proto::client::{AdminRequest, Reply, RequestBody};
use rejoin_proto::receipt::{FoldReceipt, KeptReceipt, KeyReport, ReceiptQuery, Restoration, Restored};
use rejoin_proto::{Content, Entry, Name, PluginDigest, codec};

use super::{Admin, admin_name};
#[cfg(doc)]
use crate::ErrorKind;
use crate::engine::unexpected;
use crate::key::check_key;
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

/// What the nodes have answered.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct FromNodes<T> {
    /// The answers, each with the node that gave it.
    pub answers: Vec<(Name, T)>,
    /// The nodes that gave none, each with why.
    pub silent: Vec<(Name, String)>,
    /// The nodes that have lost a part of their disk which may have had others.
    pub lost: Vec<Name>,
}

impl Admin {
    /// The receipts of folds that the nodes keep of a bucket. The node that has folded keeps the receipt, for the time
    /// that the bucket says.
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
    pub async fn receipts(&self, bucket: &str, filter: ReceiptFilter) -> Result<FromNodes<KeptReceipt>> {
        let bucket = admin_name(bucket)?;
        let ReceiptFilter { key, plugin, since_ms, undo } = filter;
        let key: Option<Bytes> = key.map(Bytes::from);
        let (mut answers, mut silent, mut failed) = (Vec::new(), Vec::new(), None);
        let mut lost: Vec<Name> = Vec::new();
        let targets = self.engine.targets();
        let all = targets.len();
        for target in targets {
            let mut from = None;
            loop {
                let (bucket, key) = (bucket.clone(), key.clone());
                let query = ReceiptQuery { bucket, key, plugin, since_ms, from, undo };
                let request = RequestBody::Admin(AdminRequest::Receipts(Box::new(query)));
                match self.engine.at(&target, &request, self.timeout).await {
                    Ok(Reply::Receipts(page)) => {
                        if page.lost && lost.last() != Some(&page.node) {
                            lost.push(page.node.clone());
                        }
                        answers.extend(page.receipts.into_iter().map(|kept| (page.node.clone(), kept)));
                        from = page.next;
                    }
                    Ok(_) => return Err(unexpected("the node")),
                    Err(error) => {
                        silent.push((target.name.clone(), error.to_string()));
                        failed = Some(error);
                        break;
                    }
                }
                if from.is_none() {
                    break;
                }
            }
        }
        match failed {
            Some(error) if silent.len() == all => Err(error),
            _ => Ok(FromNodes { answers, silent, lost }),
        }
    }

    /// Puts all inputs of a fold in the place of the folded value, each as a write of its own. What was written beside
    /// the fold stays.
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
    /// [`ErrorKind::VersionConflict`] if the key was written or folded since: nothing was written. Otherwise as for a
    /// put.
    pub async fn undo_fold(
        &self,
        bucket: &str,
        receipt: &FoldReceipt,
        inputs: &[Entry],
        context: &[u8],
    ) -> Result<Written> {
        let restored = |input: &Entry| Restored { content: input.content.clone(), expires: input.expires };
        let restoration = Restoration { by: receipt.by, inputs: inputs.iter().map(restored).collect() };
        let content = Content::Value(codec::encode(&restoration).into());
        let context = Context::from_bytes(context.to_vec());
        let (engine, key) = (self.engine.clone(), &receipt.object.key[..]);
        Write::<HasBasis>::undo(engine, admin_name(bucket)?, (key, content), &context).timeout(self.timeout).await
    }

    /// What each node knows of a key: its own copy, which plugin merges, and merges that have failed there.
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
    pub async fn explain(&self, bucket: &str, key: &[u8]) -> Result<FromNodes<KeyReport>> {
        check_key(key)?;
        let request = AdminRequest::KeyShow { bucket: admin_name(bucket)?, key: key.to_vec().into() };
        let request = RequestBody::Admin(request);
        let (mut answers, mut silent, mut failed) = (Vec::new(), Vec::new(), None);
        for target in self.engine.targets() {
            match self.engine.at(&target, &request, self.timeout).await {
                Ok(Reply::Key(report)) => answers.push((report.node.clone(), *report)),
                Ok(_) => return Err(unexpected("the node")),
                Err(error) => {
                    silent.push((target.name.clone(), error.to_string()));
                    failed = Some(error);
                }
            }
        }
        match failed {
            Some(error) if answers.is_empty() => Err(error),
            _ => Ok(FromNodes { answers, silent, lost: Vec::new() }),
        }
    }
}
