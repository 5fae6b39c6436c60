//! One client of an etcd cluster, through its JSON gateway: `POST /v3/kv/put` and `/v3/kv/range`, with keys and values
//! in base64, one request at a time on a connection that stays open.

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::net::TcpStream;

use super::args::Plan;
use super::cluster::random_value;
use super::record::{Kind, Outcome};

/// The most bytes of a reply: a value of 1 MiB in base64, twice over.
const MAX_REPLY_BYTES: usize = 4 << 20;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A client with its own connection to one member.
pub(crate) struct Etcd {
    member: SocketAddr,
    /// `None` after a request that got no answer: what would come next on its connection is the answer to that.
    sender: Option<SendRequest<Full<Bytes>>>,
    /// In base64.
    value: String,
}

/// A reply of the gateway, as far as it is looked at.
#[derive(Deserialize, Default, Debug)]
#[serde(default)]
struct Reply {
    /// What was found: none or one.
    kvs: Vec<IgnoredAny>,
    /// The gRPC status of a failure, and what it is in words: older members say it as `error`, newer as `message`.
    code: Option<i64>,
    error: String,
    message: String,
}

impl Etcd {
    /// Connects.
    ///
    /// # Errors
    /// The member cannot be reached.
    pub(crate) async fn connect(member: SocketAddr, plan: &Plan) -> Result<Self, BoxError> {
        let value = STANDARD.encode(random_value(plan.value_bytes));
        Ok(Self { member, sender: Some(connection(member).await?), value })
    }

    /// Writes once each key whose number is `number` plus a multiple of the clients.
    ///
    /// # Errors
    /// A key was not written.
    pub(crate) async fn fill(&mut self, plan: &Plan, number: u32) -> Result<(), BoxError> {
        for key in (number..plan.keys).step_by(plan.clients as usize) {
            if let Outcome::Failed(how) = self.ask(plan, Kind::Write, key).await? {
                return Err(how.into());
            }
        }
        Ok(())
    }

    /// One operation of that kind on a random key.
    pub(crate) async fn operate(&mut self, plan: &Plan, kind: Kind) -> Outcome {
        let key = rand::random_range(0..plan.keys);
        match tokio::time::timeout(plan.timeout, self.ask(plan, kind, key)).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Outcome::Failed("Disconnected".into()),
            Err(_) => Outcome::Failed("TimedOut".into()),
        }
    }

    /// The sender is away until the answer is there, so that a connection whose answer was not waited for is closed.
    async fn ask(&mut self, plan: &Plan, kind: Kind, key: u32) -> Result<Outcome, BoxError> {
        let mut sender = match self.sender.take() {
            Some(sender) if !sender.is_closed() => sender,
            _ => connection(self.member).await?,
        };
        let (path, body) = match kind {
            Kind::Write => ("/v3/kv/put", put_body(&plan.key(key), &self.value)),
            Kind::Read => ("/v3/kv/range", range_body(&plan.key(key))),
        };
        let request = Request::builder().method(Method::POST).uri(path).header(header::HOST, self.member.to_string());
        let request = request.header(header::CONTENT_TYPE, "application/json").body(Full::new(Bytes::from(body)))?;
        sender.ready().await?;
        let reply = sender.send_request(request).await?;
        let status = reply.status();
        let body = Limited::new(reply.into_body(), MAX_REPLY_BYTES).collect().await?.to_bytes();
        self.sender = Some(sender);
        Ok(outcome(kind, status, &body))
    }
}

async fn connection(member: SocketAddr) -> Result<SendRequest<Full<Bytes>>, BoxError> {
    let stream = TcpStream::connect(member).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // It does the I/O and ends when its sender is dropped; its error is also the sender's.
    tokio::spawn(connection);
    Ok(sender)
}

/// The request for one write. The value is in base64 already.
fn put_body(key: &str, value: &str) -> String {
    format!(r#"{{"key":"{}","value":"{value}"}}"#, STANDARD.encode(key))
}

/// The request for one linearizable read of one key.
fn range_body(key: &str) -> String {
    format!(r#"{{"key":"{}"}}"#, STANDARD.encode(key))
}

fn outcome(kind: Kind, status: StatusCode, body: &[u8]) -> Outcome {
    let Ok(reply) = serde_json::from_slice::<Reply>(body) else {
        let how = if status.is_success() { "InvalidData".to_owned() } else { format!("Http{}", status.as_u16()) };
        return Outcome::Failed(how);
    };
    if !status.is_success() {
        let says = |words: &str| reply.error.contains(words) || reply.message.contains(words);
        return Outcome::Failed(match reply.code {
            Some(4) => "DeadlineExceeded".into(),
            Some(8) => "ResourceExhausted".into(),
            // What was proposed may still be applied: this is no refusal.
            Some(14) if says("timed out") || says("leader changed") => match kind {
                Kind::Write => "Unknown".into(),
                Kind::Read => "TimedOut".into(),
            },
            Some(14) => "Unavailable".into(),
            Some(code) => format!("Grpc{code}"),
            None => format!("Http{}", status.as_u16()),
        });
    }
    match (kind, reply.kvs.first()) {
        (Kind::Write, _) => Outcome::Done { siblings: 0, merged: false },
        (Kind::Read, Some(_)) => Outcome::Done { siblings: 1, merged: false },
        (Kind::Read, None) => Outcome::Failed("Missing".into()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::bench::args::{Mode, RunLength};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    fn plan(timeout: Duration) -> Plan {
        Plan {
            mode: Mode::Mixed,
            rate: None,
            clients: 1,
            value_bytes: 3,
            keys: 1,
            reads: 50,
            length: RunLength::Operations(1),
            warm_up: Duration::ZERO,
            timeout,
            deadline: None,
            prefix: "p-".into(),
        }
    }

    /// Answers each connection's requests with the texts of its list, then closes it. Returns the requests.
    async fn serve(listener: TcpListener, connections: Vec<Vec<String>>) -> Vec<String> {
        let mut requests = Vec::new();
        for answers in connections {
            let (mut stream, _) = listener.accept().await.unwrap();
            for answer in answers {
                let mut request = String::new();
                while !request.ends_with('}') {
                    let mut some = vec![0; 4096];
                    let length = stream.read(&mut some).await.unwrap();
                    assert!(length > 0, "{request}");
                    request.push_str(std::str::from_utf8(&some[..length]).unwrap());
                }
                requests.push(request);
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        }
        requests
    }

    fn answer(status: &str, body: &str) -> String {
        format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    }

    #[tokio::test]
    async fn requests_are_the_gateways_and_share_a_connection_until_it_ends() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let member = listener.local_addr().unwrap();
        let found = r#"{"header":{"revision":"7"},"kvs":[{"key":"cC0wMDAwMDAwMA==","version":"1","value":"YWJj"}],"count":"1"}"#;
        let first = vec![answer("200 OK", r#"{"header":{"revision":"7"}}"#), answer("200 OK", found)];
        let second = vec![answer("503 Service Unavailable", r#"{"error":"etcdserver: no leader","code":14}"#)];
        let served = tokio::spawn(serve(listener, vec![first, second]));
        let plan = plan(Duration::from_secs(20));
        let mut etcd = Etcd::connect(member, &plan).await.unwrap();
        etcd.value = STANDARD.encode("v\0\n");
        let mut outcomes = vec![etcd.operate(&plan, Kind::Write).await, etcd.operate(&plan, Kind::Read).await];
        // The first connection is closed by the server, which its client may learn from a failed request only.
        while outcomes.len() == 2 || matches!(outcomes.last(), Some(Outcome::Failed(how)) if how == "Disconnected") {
            outcomes.push(etcd.operate(&plan, Kind::Read).await);
        }
        assert!(
            matches!(outcomes[0], Outcome::Done { .. }) && matches!(outcomes[1], Outcome::Done { .. }),
            "{outcomes:?}"
        );
        assert!(matches!(outcomes.last(), Some(Outcome::Failed(how)) if how == "Unavailable"), "{outcomes:?}");
        let requests = served.await.unwrap();
        assert_eq!(requests.len(), 3, "{requests:?}");
        assert!(
            requests[0].starts_with("POST /v3/kv/put HTTP/1.1\r\n")
                && requests[0].contains("content-type: application/json")
        );
        assert!(requests[0].ends_with(r#"{"key":"cC0wMDAwMDAwMA==","value":"dgAK"}"#), "{}", requests[0]);
        assert!(requests[1].starts_with("POST /v3/kv/range HTTP/1.1\r\n"), "{}", requests[1]);
        assert!(requests[1].ends_with(r#"{"key":"cC0wMDAwMDAwMA=="}"#), "{}", requests[1]);
    }

    #[tokio::test]
    async fn a_request_without_an_answer_takes_its_connection_along() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let member = listener.local_addr().unwrap();
        // The kernel accepts, and nobody answers.
        let plan = plan(Duration::from_millis(50));
        let mut etcd = Etcd::connect(member, &plan).await.unwrap();
        let outcome = etcd.operate(&plan, Kind::Read).await;
        assert!(matches!(&outcome, Outcome::Failed(how) if how == "TimedOut"), "{outcome:?}");
        assert!(etcd.sender.is_none());
        drop(listener);
    }

    #[test]
    fn replies_are_understood_or_named() {
        let of = |kind, status, body: &str| match outcome(kind, StatusCode::from_u16(status).unwrap(), body.as_bytes())
        {
            Outcome::Done { .. } => "done".to_owned(),
            Outcome::Failed(how) => how,
        };
        assert_eq!(of(Kind::Write, 200, r#"{"header":{"cluster_id":"1"}}"#), "done");
        assert_eq!(of(Kind::Read, 200, r#"{"header":{},"kvs":[{"key":"YQ==","value":"YQ=="}],"count":"1"}"#), "done");
        assert_eq!(of(Kind::Read, 200, r#"{"header":{}}"#), "Missing");
        assert_eq!(of(Kind::Read, 200, "no JSON"), "InvalidData");
        assert_eq!(of(Kind::Write, 429, r#"{"error":"etcdserver: too many requests","code":8}"#), "ResourceExhausted");
        assert_eq!(of(Kind::Write, 504, r#"{"error":"context deadline exceeded","code":4}"#), "DeadlineExceeded");
        assert_eq!(of(Kind::Write, 503, r#"{"code":14,"message":"etcdserver: no leader"}"#), "Unavailable");
        for unknown in [
            r#"{"error":"etcdserver: request timed out","code":14,"message":"etcdserver: request timed out"}"#,
            r#"{"code":14,"message":"etcdserver: leader changed","details":[]}"#,
        ] {
            assert_eq!(
                (of(Kind::Write, 503, unknown), of(Kind::Read, 503, unknown)),
                ("Unknown".to_owned(), "TimedOut".to_owned())
            );
        }
        assert_eq!(of(Kind::Write, 400, r#"{"error":"etcdserver: key is not provided","code":3}"#), "Grpc3");
        assert_eq!(of(Kind::Write, 404, "404 page not found\n"), "Http404");
    }
}
