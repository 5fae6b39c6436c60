//! The first connection: dials the seeds until one admits the client.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use rejoin_proto::Address;
use rejoin_proto::client::Routes;

use crate::connections::Connections;
use crate::session::Session;
use crate::{Error, ErrorKind, Result};

/// The longest pause before the next seed is dialled while earlier ones have not answered.
const STAGGER: Duration = Duration::from_millis(250);

/// The first node that admitted the client.
pub(crate) struct Bootstrapped {
    pub(crate) session: Arc<Session>,
    pub(crate) routes: Routes,
    pub(crate) address: Address,
}

/// Dials the seeds in order, the next one as soon as one fails or after a pause, for at most `timeout`.
///
/// # Errors
/// The most specific refusal, or all errors if no seed could be reached.
pub(crate) async fn bootstrap(
    connections: &Arc<Connections>,
    seeds: &[String],
    timeout: Duration,
) -> Result<Bootstrapped> {
    let deadline = Instant::now() + timeout;
    let stagger = STAGGER.min(timeout / u32::try_from(2 * seeds.len()).unwrap_or(u32::MAX));
    let (mut dials, mut waiting, mut failures) = (JoinSet::new(), seeds.iter(), Vec::new());
    loop {
        if let Some(seed) = waiting.next() {
            dials.spawn(dial(Arc::clone(connections), seed.clone(), deadline));
        }
        let slow =
            async { if waiting.len() > 0 { tokio::time::sleep(stagger).await } else { std::future::pending().await } };
        tokio::select! { biased;
            done = dials.join_next() => match done {
                Some(Ok(Ok(met))) => return Ok(met),
                Some(Ok(Err(error))) => failures.push(error),
                Some(Err(panic)) => failures.push(Error::new(ErrorKind::Unreachable, panic.to_string())),
                None if waiting.len() == 0 => return Err(none_answered(failures)),
                None => {}
            },
            () = slow => {}
        }
    }
}

/// Dials every IP address of a seed until one admits the client.
async fn dial(connections: Arc<Connections>, seed: String, deadline: Instant) -> Result<Bootstrapped> {
    let address: Address =
        seed.parse().map_err(|why| Error::new(ErrorKind::Config, format!("the seed {seed:?} is no address: {why}")))?;
    let found = tokio::time::timeout_at(deadline, connections.resolve(&address)).await;
    let found = found.unwrap_or_else(|_| {
        Err(Error::new(ErrorKind::Unreachable, format!("{address}: the resolver does not answer")))
    })?;
    let mut failures = Vec::new();
    for at in found {
        match connections.dial(at, &address, deadline).await {
            Ok((session, routes)) => return Ok(Bootstrapped { session, routes, address }),
            Err(error) => failures.push(error),
        }
    }
    Err(none_answered(failures))
}

/// The error when no seed admits the client: a refusal if there was one, otherwise all errors.
fn none_answered(failures: Vec<Error>) -> Error {
    let silent = |error: &Error| matches!(error.kind(), ErrorKind::Unreachable | ErrorKind::Config);
    let all_config = failures.iter().all(|error| error.kind() == ErrorKind::Config);
    match failures.iter().filter(|error| !silent(error)).max_by_key(|error| error.specificity()) {
        Some(error) => error.clone(),
        None if failures.len() == 1 => failures[0].clone(),
        None => {
            let list: Vec<String> = failures.iter().map(ToString::to_string).collect();
            let kind = if all_config { ErrorKind::Config } else { ErrorKind::Unreachable };
            Error::new(kind, format!("no seed could be reached: {}", list.join("; ")))
        }
    }
}
