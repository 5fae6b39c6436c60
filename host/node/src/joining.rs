//! A first start with `join`: asks a node of the running cluster for the ring, and others too if that ring names this
//! node a member (`rejoin_core::ring::joining`).
//!
//! The starting node is a client in this, with the token that is derived from the cluster's secret. So the answering
//! node knows that the secret is the same, and the certificates of both have shown that the cluster is.

use std::time::Duration;

use tokio::task::JoinSet;

use rejoin_core::ring::joining;
use rejoin_proto::client::{
    AdminRequest, ClientHello, HelloReply, PROTOCOL, Reply, ReplyEnvelope, Request, RequestBody,
};
use rejoin_proto::layout_request::LayoutRequest;
use rejoin_proto::{Address, ErrorCode, LayoutRef, Name, NodeId, Ring, codec};
use rejoin_wire::{Class, CloseCode, Connection, Endpoint, Error, Identity, Limits};

use crate::config::Config;
use crate::error::StartError;
use crate::platform::Platform;
use crate::secret::Secret;

/// How long one node may take to answer.
const ANSWER_WAIT: Duration = Duration::from_secs(5);
/// How long all others may take whose rings are needed too.
const OTHERS_WAIT: Duration = Duration::from_secs(2);
/// The pause after no node has answered.
const PAUSE: Duration = Duration::from_secs(1);

/// Why a node did not give the ring.
enum Refusal {
    /// It may later, or another one may.
    Now(String),
    /// No node of this cluster will, until an operator has changed something.
    Lasting(String),
}

/// What it takes to ask a node.
#[derive(Clone)]
struct Asker {
    endpoint: Endpoint,
    name: Name,
    token: String,
}

/// Asks the nodes at the addresses of `join`, again and again, until one gives the ring.
///
/// # Errors
/// A node has answered that this one does not belong to its cluster.
pub(crate) async fn fetch_ring(
    config: &Config,
    platform: &Platform,
    identity: &Identity,
    secret: &Secret,
) -> Result<Ring, StartError> {
    let endpoint = Endpoint::for_dialling_on(&*platform.network, None, identity.clone(), Limits::default())?;
    let asker = Asker { endpoint, name: config.name.clone(), token: secret.root_token() };
    let mut told = String::new();
    loop {
        let mut failures = Vec::new();
        for address in &config.join {
            let given = match asker.ask(address).await {
                Ok(first) => asker.join_by(first).await,
                Err(refusal) => Err(refusal),
            };
            match given {
                Ok(ring) => {
                    asker.endpoint.close(CloseCode::SHUTDOWN, "it has the ring").await;
                    tracing::info!(from = %address, layout = ring.newest().version, "joining the cluster");
                    return Ok(ring);
                }
                Err(Refusal::Lasting(why)) => {
                    return Err(StartError::Unfit(format!("it cannot join the cluster at {address}: {why}")));
                }
                Err(Refusal::Now(why)) => failures.push(format!("{address}: {why}")),
            }
        }
        let failures = failures.join("; ");
        if told != failures {
            tracing::warn!("no node of `join` lets this one in yet, it goes on asking: {failures}");
            told = failures;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

impl Asker {
    /// The ring by which this node joins, of the first one and those of others, as far as they answer in time.
    async fn join_by(&self, first: Ring) -> Result<Ring, Refusal> {
        let node = NodeId::from_name(&self.name);
        let (mut asked, mut others) = (JoinSet::new(), Vec::new());
        for address in joining::to_ask(node, &first) {
            let asker = self.clone();
            asked.spawn(async move { tokio::time::timeout(OTHERS_WAIT, asker.ask(&address)).await });
        }
        while let Some(answer) = asked.join_next().await {
            // Who does not answer, or is of another cluster by now, is done without.
            others.extend(answer.ok().and_then(Result::ok).and_then(Result::ok));
        }
        joining::joined(node, first, others).map_err(|why| Refusal::Now(why.to_string()))
    }

    async fn ask(&self, address: &Address) -> Result<Ring, Refusal> {
        let mut last = Refusal::Now("it has no IP address".to_owned());
        for found in self.endpoint.resolve(address).await.map_err(|error| Refusal::of(&error))? {
            match self.endpoint.connect_client(found).await {
                Ok(connection) => {
                    let asked = tokio::time::timeout(ANSWER_WAIT, self.ask_on(&connection)).await;
                    return asked.unwrap_or_else(|_| Err(Refusal::Now("it does not answer".to_owned())));
                }
                Err(error) => last = Refusal::of(&error),
            }
        }
        Err(last)
    }

    async fn ask_on(&self, connection: &Connection) -> Result<Ring, Refusal> {
        let lost = || Refusal::Now("the connection was lost".to_owned());
        let strange =
            |what: &str| Refusal::Now(format!("its {what} cannot be understood: run one release on all nodes"));
        let sender = connection.sender();
        let client = format!("{}, which joins", self.name);
        let hello = ClientHello { protocol: PROTOCOL, token: self.token.clone(), tenant: None, client };
        sender.send(Class::Control, 0, codec::encode(&hello).into()).await.map_err(|_| lost())?;
        let answer = connection.recv().await.ok_or_else(lost)?;
        match codec::decode::<HelloReply>(&answer.body).map_err(|_| strange("hello"))? {
            HelloReply::Welcome(_) => {}
            HelloReply::Refused(why) if why.code == ErrorCode::Denied => {
                let why = "the cluster's secret differs from the one here: give this node the same secret file";
                return Err(Refusal::Lasting(why.to_owned()));
            }
            HelloReply::Refused(why) if why.code == ErrorCode::Protocol => {
                return Err(Refusal::Lasting(why.to_string()));
            }
            HelloReply::Refused(why) => return Err(Refusal::Now(why.to_string())),
        }
        let wanted = AdminRequest::Layout(LayoutRequest::Join(self.name.clone()));
        let deadline_ms = u32::try_from(ANSWER_WAIT.as_millis()).unwrap_or(u32::MAX);
        let layout = LayoutRef::default();
        let request = Request { deadline_ms, trace: 0, layout, body: RequestBody::Admin(wanted) };
        sender.send(Class::Request, 1, codec::encode(&request).into()).await.map_err(|_| lost())?;
        loop {
            let frame = connection.recv().await.ok_or_else(lost)?;
            // The node may say on the control class that it stops.
            if frame.class == Class::Control {
                continue;
            }
            let answer = codec::decode::<ReplyEnvelope>(&frame.body).map_err(|_| strange("answer"))?;
            return match answer.reply {
                Reply::Ring(ring) => ring.check().map(|()| ring).map_err(|_| strange("ring")),
                Reply::Error(why) if why.code == ErrorCode::BadRequest => Err(Refusal::Lasting(why.to_string())),
                Reply::Error(why) => Err(Refusal::Now(why.to_string())),
                _ => Err(strange("answer")),
            };
        }
    }
}

impl Refusal {
    fn of(error: &Error) -> Self {
        let lasting = matches!(
            error,
            Error::Untrusted { .. }
                | Error::WrongCluster { .. }
                | Error::CertificateRefused { .. }
                | Error::NotANode { .. }
                | Error::NoSuchProtocol { .. }
                | Error::Version { .. }
        );
        if lasting { Self::Lasting(error.to_string()) } else { Self::Now(error.to_string()) }
    }
}
