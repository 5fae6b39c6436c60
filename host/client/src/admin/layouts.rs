//! Layouts: who owns which partitions, and how that changes.

use rejoin_proto::client::{AdminRequest, Reply, RequestBody};
use rejoin_proto::layout_request::{LayoutChanges, LayoutPlan, LayoutRequest, LayoutStatus};
use rejoin_proto::{LayoutRef, Name};
use rejoin_wire::Class;

use super::{Admin, admin_name};
#[cfg(doc)]
use crate::ErrorKind;
use crate::Result;
use crate::engine::unexpected;

impl Admin {
    /// The live layouts, what is staged, and how far a change has come, as the answering node sees it.
    ///
    /// ```no_run
    /// # async fn run(client: rejoin_client::Client) -> rejoin_client::Result<()> {
    /// let changes = client.admin().layout().await?.change.is_some();
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Admin::status`].
    pub async fn layout(&self) -> Result<LayoutStatus> {
        match self.ask(AdminRequest::Layout(LayoutRequest::Show)).await? {
            Reply::LayoutStatus(status) => Ok(status),
            _ => Err(unexpected("the node")),
        }
    }

    /// Stages changes on top of the newest layout. Nothing moves before [`Admin::apply_layout`].
    ///
    /// ```no_run
    /// # use rejoin_client::admin::{LayoutChanges, Name, NodeChange};
    /// # async fn run(client: rejoin_client::Client) -> rejoin_client::Result<()> {
    /// let node = Name::new("n4").expect("a good name");
    /// let nodes = vec![NodeChange::Assign { node, zone: None, capacity: Some(2) }];
    /// client.admin().stage_layout(LayoutChanges { nodes, ..LayoutChanges::default() }).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::BadRequest`] if a node is not known or no member; else as [`Admin::status`].
    pub async fn stage_layout(&self, changes: LayoutChanges) -> Result<LayoutRef> {
        self.change_layout(LayoutRequest::Stage(changes)).await
    }

    /// Takes back everything that is staged.
    ///
    /// ```no_run
    /// # async fn run(client: rejoin_client::Client) -> rejoin_client::Result<()> {
    /// client.admin().revert_layout().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::BadRequest`] if nothing is staged; else as [`Admin::status`].
    pub async fn revert_layout(&self) -> Result<LayoutRef> {
        self.change_layout(LayoutRequest::Revert).await
    }

    /// The layout that comes of what is staged, and what it moves.
    ///
    /// ```no_run
    /// # async fn run(client: rejoin_client::Client) -> rejoin_client::Result<()> {
    /// let plan = client.admin().plan_layout().await?;
    /// println!("{} copies of partitions move", plan.moved);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::BadRequest`] if nothing is staged, or the demands cannot be met; else as [`Admin::status`].
    pub async fn plan_layout(&self) -> Result<LayoutPlan> {
        match self.ask(AdminRequest::Layout(LayoutRequest::Plan)).await? {
            Reply::LayoutPlan(plan) => Ok(plan),
            _ => Err(unexpected("the node")),
        }
    }

    /// Makes what is staged the newest layout, if that is the layout of this name, which a plan has shown. Nodes carry
    /// the change out while they serve; [`Admin::layout`] says how far they have come.
    ///
    /// ```no_run
    /// # async fn run(client: rejoin_client::Client) -> rejoin_client::Result<()> {
    /// let plan = client.admin().plan_layout().await?;
    /// client.admin().apply_layout(plan.name).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::VersionConflict`] if something else would be applied by now, [`ErrorKind::Overloaded`] if too many
    /// changes are under way; else as [`Admin::plan_layout`].
    pub async fn apply_layout(&self, name: LayoutRef) -> Result<LayoutRef> {
        self.change_layout(LayoutRequest::Apply(name)).await
    }

    /// Declares a node dead, for the changes that are under way: they do not wait for it. What only it has acknowledged
    /// is given up by reads of one quorum.
    ///
    /// ```no_run
    /// # async fn run(client: rejoin_client::Client) -> rejoin_client::Result<()> {
    /// client.admin().skip_in_layout("n2").await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::BadRequest`] if it is connected, no member, or no change is under way, [`ErrorKind::Config`] for a
    /// malformed name; else as [`Admin::status`].
    pub async fn skip_in_layout(&self, node: &str) -> Result<LayoutRef> {
        let node: Name = admin_name(node)?;
        self.change_layout(LayoutRequest::Skip(node)).await
    }

    async fn change_layout(&self, request: LayoutRequest) -> Result<LayoutRef> {
        let body = RequestBody::Admin(AdminRequest::Layout(request));
        match self.engine.once(Class::Request, body, self.timeout).await? {
            Reply::LayoutChanged(newest) => Ok(newest),
            _ => Err(unexpected("the node")),
        }
    }
}
