//! Asks a node's admin port: one HTTP request a connection, one answer.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::failure::{Exit, Failure};

const PATIENCE: Duration = Duration::from_secs(5);
/// More than any answer of an admin port has.
const MOST: u64 = 1 << 20;

/// `GET`s a path of an admin port: the answer's body.
///
/// # Errors
/// Nobody answers, or the answer is no success.
pub(crate) async fn get(admin: SocketAddr, path: &str) -> Result<String, Failure> {
    // A client of HTTP/1.0 is not answered in chunks.
    let request = format!("GET {path} HTTP/1.0\r\nHost: {admin}\r\n\r\n");
    let answer = ask(admin, &request).await?;
    Ok(answer.split_once("\r\n\r\n").map_or_else(String::new, |(_, body)| body.to_owned()))
}

/// `POST`s to a path of an admin port.
///
/// # Errors
/// Nobody answers, or the answer is no success.
pub(crate) async fn post(admin: SocketAddr, path: &str) -> Result<(), Failure> {
    let request = format!("POST {path} HTTP/1.1\r\nHost: {admin}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    ask(admin, &request).await.map(|_| ())
}

/// A successful answer, with its head.
async fn ask(admin: SocketAddr, request: &str) -> Result<String, Failure> {
    let failed = |why: &str| {
        let what = request.lines().next().unwrap_or_default();
        Failure::new(Exit::Unreachable, format!("{what} at {admin} failed: {why}"))
    };
    let answer = tokio::time::timeout(PATIENCE, exchange(admin, request)).await;
    let answer = answer.map_err(|_| failed("no answer"))?.map_err(|why| failed(&why.to_string()))?;
    if succeeded(&answer) { Ok(answer) } else { Err(failed(answer.lines().next().unwrap_or("an empty answer"))) }
}

async fn exchange(admin: SocketAddr, request: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(admin).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(MOST).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn succeeded(answer: &str) -> bool {
    let status = answer
        .strip_prefix("HTTP/1.1 ")
        .or_else(|| answer.strip_prefix("HTTP/1.0 "))
        .and_then(|rest| rest.get(..3))
        .and_then(|code| code.parse::<u16>().ok());
    status.is_some_and(|code| (200..300).contains(&code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_2xx_is_a_success() {
        assert!(succeeded("HTTP/1.1 200 OK\r\n\r\n") && succeeded("HTTP/1.1 204 No Content\r\n\r\n"));
        for other in ["HTTP/1.1 404 Not Found\r\n", "HTTP/1.1 20", "", "SSH-2.0"] {
            assert!(!succeeded(other), "{other}");
        }
    }
}
