//! The operator: stages, plans and applies changes of the layout through the SDK, as `rejoin layout` does, and waits
//! until they are carried out.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rejoin_client::admin::LayoutChanges;
use rejoin_client::{Client, ErrorKind};
use rejoin_proto::client::{ClientHello, HelloReply, PROTOCOL};
use rejoin_proto::{Layout, LayoutRef, Name, codec};
use rejoin_test_cluster::{Files, Intruder};

/// How long an attempt at a command may take, and the pause before the next one.
const ATTEMPT: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(300);
/// How long commands are tried again while faults keep them from being taken.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a change may take in all, under faults.
const CARRIED_OUT: Duration = Duration::from_secs(180);
/// How long a node may take to tell its layout.
const TELLS: Duration = Duration::from_secs(2);
/// The most bytes of an answer to a hello.
const HELLO_BYTES: usize = 16 << 20;

/// Makes a change the newest layout. Returns its name.
///
/// # Errors
/// It cannot be, or no node has taken the command in time: nothing was changed.
pub async fn apply(client: &Client, changes: &LayoutChanges) -> Result<LayoutRef, String> {
    let end = Instant::now() + PATIENCE;
    // What an attempt has staged that was given up may have come to this node since, and splits come alone.
    let mut may_clear = true;
    loop {
        let admin = client.admin().timeout(ATTEMPT);
        let planned = match admin.stage_layout(changes.clone()).await {
            Ok(_) => admin.plan_layout().await,
            Err(refused) => Err(refused),
        };
        let why = match planned {
            Ok(plan) => match admin.apply_layout(plan.name).await {
                Ok(name) => return Ok(name),
                // Its answer was lost.
                Err(_) if is_live(client, plan.name).await => return Ok(plan.name),
                Err(other) => other,
            },
            Err(refused) => refused,
        };
        let is_refused = why.kind() == ErrorKind::BadRequest;
        if is_refused || Instant::now() >= end {
            let _ = admin.revert_layout().await;
            if !is_refused || !std::mem::take(&mut may_clear) {
                return Err(why.to_string());
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn is_live(client: &Client, name: LayoutRef) -> bool {
    client.admin().timeout(ATTEMPT).layout().await.is_ok_and(|status| status.live.contains(&name))
}

/// Waits until that layout, or a newer one, is the only one that is live. A dead node is declared dead where a change
/// waits for it.
///
/// # Errors
/// What it still waits for.
pub async fn carried_out(client: &Client, layout: LayoutRef, dead: Option<&Name>) -> Result<(), String> {
    let end = Instant::now() + CARRIED_OUT;
    loop {
        let admin = client.admin().timeout(ATTEMPT);
        let waits = match admin.layout().await {
            Ok(status) if status.change.is_none() && status.live.iter().all(|live| *live >= layout) => return Ok(()),
            Ok(status) => {
                let awaited = status.change.iter().flat_map(|change| &change.waits_for).map(|node| &node.name);
                if let Some(dead) = dead.filter(|dead| awaited.clone().any(|name| name == *dead)) {
                    // Refused while the answering node has not noticed yet that the connection is dead.
                    let _ = admin.skip_in_layout(dead.as_str()).await;
                }
                format!("{:?}", status.change)
            }
            Err(error) => error.to_string(),
        };
        if Instant::now() >= end {
            return Err(waits);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The newest layout that the nodes at these addresses have.
pub async fn newest(files: &Files, addresses: &[SocketAddr]) -> Option<Layout> {
    let mut found: Option<Layout> = None;
    let token = rejoin_node::root_token(files.secret.as_bytes());
    for address in addresses {
        // In a task of its own, which may end at a connection that breaks.
        let asked = tokio::spawn(layout_of(*address, files.ca.cert_pem().to_owned(), token.clone()));
        if let Ok(Ok(Some(layout))) = tokio::time::timeout(TELLS, asked).await
            && found.as_ref().is_none_or(|known| known.name() < layout.name())
        {
            found = Some(layout);
        }
    }
    found
}

/// The layout that a node gives its clients. The SDK keeps it to itself.
async fn layout_of(address: SocketAddr, ca_pem: String, token: String) -> Option<Layout> {
    let dialled = Intruder::dial(address, &ca_pem, "rejoin-client/1", None).await.ok()?;
    let mut streams = dialled.greet().await;
    let hello = codec::encode(&ClientHello { protocol: PROTOCOL, token, tenant: None, client: "storm".into() });
    let length = u32::try_from(hello.len()).ok()?;
    let (send, receive) = streams.first_mut()?;
    send.write_all(&[&length.to_le_bytes()[..], &[0; 8], &hello].concat()).await.ok()?;
    let mut head = [0; 12];
    receive.read_exact(&mut head).await.ok()?;
    let length = usize::try_from(u32::from_le_bytes([head[0], head[1], head[2], head[3]])).ok()?;
    let mut body = vec![0; length.min(HELLO_BYTES)];
    receive.read_exact(&mut body).await.ok()?;
    match codec::decode::<HelloReply>(&body).ok()? {
        HelloReply::Welcome(hello) => Some(hello.routes.layout),
        HelloReply::Refused(_) => None,
    }
}
