//! One client of a Redis server: the part of RESP2 for SET, GET and WAIT, one request at a time.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::args::Plan;
use super::cluster::random_value;
use super::record::{Kind, Outcome};

/// A client with its own connection, as usual for Redis.
pub(crate) struct Redis {
    server: SocketAddr,
    /// `None` after a request that got no answer: what would come next on its connection is the answer to that.
    stream: Option<BufReader<TcpStream>>,
    wait: u8,
    request: Vec<u8>,
    value: Vec<u8>,
}

/// The reply of the server.
#[derive(PartialEq, Eq, Debug)]
enum Reply {
    Status(String),
    Error(String),
    Number(i64),
    Bytes(Option<Vec<u8>>),
}

impl Redis {
    /// Connects. Each write is followed by a WAIT for `wait` replicas, unless that is 0.
    ///
    /// # Errors
    /// The server cannot be reached.
    pub(crate) async fn connect(server: SocketAddr, wait: u8, plan: &Plan) -> std::io::Result<Self> {
        let stream = Some(connection(server).await?);
        Ok(Self { server, stream, wait, request: Vec::new(), value: random_value(plan.value_bytes) })
    }

    /// Writes once each key whose number is `number` plus a multiple of the clients.
    ///
    /// # Errors
    /// A key was not written.
    pub(crate) async fn fill(&mut self, plan: &Plan, number: u32) -> std::io::Result<()> {
        for key in (number..plan.keys).step_by(plan.clients as usize) {
            if let Outcome::Failed(how) = self.set(plan, key).await? {
                return Err(std::io::Error::other(how));
            }
        }
        Ok(())
    }

    /// One operation of that kind on a random key.
    pub(crate) async fn operate(&mut self, plan: &Plan, kind: Kind) -> Outcome {
        let key = rand::random_range(0..plan.keys);
        let done = tokio::time::timeout(plan.timeout, async {
            match kind {
                Kind::Read => self.get(plan, key).await,
                Kind::Write => self.set(plan, key).await,
            }
        });
        match done.await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => Outcome::Failed(format!("{:?}", error.kind())),
            Err(_) => Outcome::Failed("TimedOut".into()),
        }
    }

    async fn get(&mut self, plan: &Plan, key: u32) -> std::io::Result<Outcome> {
        self.request.clear();
        command(&mut self.request, &[b"GET", plan.key(key).as_bytes()]);
        let [reply] = self.ask::<1>().await?;
        Ok(match reply {
            Reply::Bytes(Some(_)) => DONE,
            Reply::Bytes(None) => Outcome::Failed("Missing".into()),
            other => refused(&other),
        })
    }

    /// SET and WAIT are sent together, which saves a round trip.
    async fn set(&mut self, plan: &Plan, key: u32) -> std::io::Result<Outcome> {
        self.request.clear();
        command(&mut self.request, &[b"SET", plan.key(key).as_bytes(), &self.value]);
        if self.wait > 0 {
            let patience = millis(plan.timeout);
            command(&mut self.request, &[b"WAIT", self.wait.to_string().as_bytes(), patience.as_bytes()]);
        }
        let [stored, copies] = if self.wait > 0 {
            self.ask::<2>().await?
        } else {
            let [stored] = self.ask::<1>().await?;
            [stored, Reply::Number(0)]
        };
        Ok(match (stored, copies) {
            (Reply::Status(_), Reply::Number(copies)) if copies >= i64::from(self.wait) => DONE,
            (Reply::Status(_), Reply::Number(_)) => Outcome::Failed("TooFewReplicas".into()),
            (Reply::Status(_), other) | (other, _) => refused(&other),
        })
    }

    /// Sends the request. The stream is away until all replies are there, so that a connection whose answer was not
    /// waited for is closed.
    async fn ask<const REPLIES: usize>(&mut self) -> std::io::Result<[Reply; REPLIES]> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => connection(self.server).await?,
        };
        stream.get_mut().write_all(&self.request).await?;
        let mut replies = [const { Reply::Bytes(None) }; REPLIES];
        for reply in &mut replies {
            *reply = reply_from(&mut stream).await?;
        }
        self.stream = Some(stream);
        Ok(replies)
    }
}

async fn connection(server: SocketAddr) -> std::io::Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect(server).await?;
    stream.set_nodelay(true)?;
    Ok(BufReader::new(stream))
}

async fn reply_from(stream: &mut BufReader<TcpStream>) -> std::io::Result<Reply> {
    let mut line = String::new();
    if stream.read_line(&mut line).await? == 0 {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    let malformed = || std::io::Error::from(std::io::ErrorKind::InvalidData);
    let (kind, rest) = line.trim_end().split_at_checked(1).ok_or_else(malformed)?;
    match kind {
        "+" => Ok(Reply::Status(rest.to_owned())),
        "-" => Ok(Reply::Error(rest.to_owned())),
        ":" => rest.parse().map(Reply::Number).map_err(|_| malformed()),
        "$" if rest == "-1" => Ok(Reply::Bytes(None)),
        "$" => {
            let length: usize = rest.parse().map_err(|_| malformed())?;
            // The user named this server, and its values were written by this program.
            let mut bytes = vec![0; length + 2];
            stream.read_exact(&mut bytes).await?;
            bytes.truncate(length);
            Ok(Reply::Bytes(Some(bytes)))
        }
        _ => Err(malformed()),
    }
}

const DONE: Outcome = Outcome::Done { siblings: 0, merged: false };

/// An error of Redis begins with its kind, in capitals.
fn refused(reply: &Reply) -> Outcome {
    Outcome::Failed(match reply {
        Reply::Error(text) => text.split(' ').next().unwrap_or_default().to_owned(),
        _ => "InvalidData".into(),
    })
}

fn command(request: &mut Vec<u8>, words: &[&[u8]]) {
    request.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        request.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        request.extend_from_slice(word);
        request.extend_from_slice(b"\r\n");
    }
}

fn millis(time: Duration) -> String {
    time.as_millis().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::args::{Mode, RunLength};
    use tokio::net::TcpListener;

    fn plan() -> Plan {
        let (length, warm_up, timeout) = (RunLength::Operations(1), Duration::ZERO, Duration::from_millis(1_500));
        Plan {
            mode: Mode::Mixed,
            rate: None,
            clients: 1,
            value_bytes: 3,
            keys: 1,
            reads: 50,
            length,
            warm_up,
            timeout,
            deadline: None,
            prefix: "p-".into(),
        }
    }

    /// The outcome of one operation against a server that answers `answer`, and the request that it received.
    async fn asked(wait: u8, kind: Kind, answer: &'static [u8]) -> (Outcome, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = listener.local_addr().unwrap();
        let served = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let length = stream.read(&mut request).await.unwrap();
            request.truncate(length);
            stream.write_all(answer).await.unwrap();
            request
        });
        let mut redis = Redis::connect(server, wait, &plan()).await.unwrap();
        redis.value = b"v\r\n".to_vec();
        let outcome = redis.operate(&plan(), kind).await;
        (outcome, served.await.unwrap())
    }

    #[tokio::test]
    async fn commands_are_written_as_the_protocol_has_them() {
        let (outcome, request) = asked(2, Kind::Write, b"+OK\r\n:2\r\n").await;
        assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
        let expected =
            "*3\r\n$3\r\nSET\r\n$10\r\np-00000000\r\n$3\r\nv\r\n\r\n*3\r\n$4\r\nWAIT\r\n$1\r\n2\r\n$4\r\n1500\r\n";
        assert_eq!(String::from_utf8(request).unwrap(), expected);
        let (outcome, request) = asked(0, Kind::Read, b"$5\r\na\r\nbc\r\n").await;
        assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
        assert_eq!(String::from_utf8(request).unwrap(), "*2\r\n$3\r\nGET\r\n$10\r\np-00000000\r\n");
    }

    #[tokio::test]
    async fn a_late_answer_is_not_taken_for_that_of_the_next_request() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = listener.local_addr().unwrap();
        let served = tokio::spawn(async move {
            let (mut silent, _) = listener.accept().await.unwrap();
            let (mut next, _) = listener.accept().await.unwrap();
            // Nobody may be there to read it, which is what is asked for.
            let _ = silent.write_all(b"-LATE answer\r\n").await;
            assert!(next.read(&mut [0; 4096]).await.unwrap() > 0);
            next.write_all(b"$1\r\nb\r\n").await.unwrap();
        });
        let hasty = Plan { timeout: Duration::from_millis(50), ..plan() };
        let patient = Plan { timeout: Duration::from_secs(20), ..plan() };
        let mut redis = Redis::connect(server, 0, &hasty).await.unwrap();
        let outcome = redis.operate(&hasty, Kind::Read).await;
        assert!(matches!(&outcome, Outcome::Failed(how) if how == "TimedOut"), "{outcome:?}");
        let outcome = redis.operate(&patient, Kind::Read).await;
        assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
        served.await.unwrap();
    }

    #[tokio::test]
    async fn what_is_no_success_is_counted_under_its_name() {
        for (wait, kind, answer, name) in [
            (0, Kind::Read, &b"$-1\r\n"[..], "Missing"),
            (2, Kind::Write, b"+OK\r\n:1\r\n", "TooFewReplicas"),
            (0, Kind::Write, b"-OOM command not allowed\r\n", "OOM"),
            (1, Kind::Write, b"+OK\r\n-ERR no\r\n", "ERR"),
            (0, Kind::Read, b"?\r\n", "InvalidData"),
            (0, Kind::Read, b"$5\r\nab", "UnexpectedEof"),
        ] {
            let (outcome, _) = asked(wait, kind, answer).await;
            assert!(matches!(&outcome, Outcome::Failed(how) if how == name), "{name}: {outcome:?}");
        }
    }
}
