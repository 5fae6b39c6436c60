//! Requests to a node's admin port, one on each connection.

use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::failure::{Exit, Failure};

const TIMEOUT: Duration = Duration::from_secs(5);
/// The most bytes of a reply's body: more than any page of an admin port has.
const MAX_BODY_BYTES: usize = 1 << 20;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// `GET`s a path of an admin port, and returns the body.
///
/// # Errors
/// The node does not answer in time, or not with a status of 2xx.
pub(crate) async fn get(admin: SocketAddr, path: &str) -> Result<String, Failure> {
    request(admin, Method::GET, path).await
}

/// `POST`s to a path of an admin port.
///
/// # Errors
/// As [`get`].
pub(crate) async fn post(admin: SocketAddr, path: &str) -> Result<(), Failure> {
    request(admin, Method::POST, path).await.map(drop)
}

async fn request(admin: SocketAddr, method: Method, path: &str) -> Result<String, Failure> {
    let what = format!("{method} {path} at {admin}");
    let failed = |why: String| Failure::new(Exit::Unreachable, format!("{what} failed: {why}"));
    let reply = tokio::time::timeout(TIMEOUT, exchange(admin, method, path)).await;
    let (status, body) = reply.map_err(|_| failed("no answer".into()))?.map_err(|why| failed(why.to_string()))?;
    let body = String::from_utf8_lossy(&body).into_owned();
    match status.is_success() {
        true => Ok(body),
        false => Err(failed(format!("{status}: {}", body.trim_end()))),
    }
}

async fn exchange(admin: SocketAddr, method: Method, path: &str) -> Result<(StatusCode, Bytes), BoxError> {
    let stream = TokioIo::new(TcpStream::connect(admin).await?);
    let (mut sender, connection) = http1::handshake(stream).await?;
    let request = Request::builder().method(method).uri(path).header(header::HOST, admin.to_string());
    let request = request.header(header::CONNECTION, "close").body(Empty::<Bytes>::new())?;
    let reply = async move {
        let reply = sender.send_request(request).await?;
        let status = reply.status();
        let body = Limited::new(reply.into_body(), MAX_BODY_BYTES).collect().await?;
        Ok::<_, BoxError>((status, body.to_bytes()))
    };
    // The connection does the I/O. It ends after the reply, or with an error that the reply has too.
    let (reply, _) = tokio::join!(reply, connection);
    reply
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// The result of one request to a server that answers `reply`, and the request as the server got it.
    async fn asked(method: Method, reply: Vec<u8>) -> (Result<String, String>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let admin = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.unwrap());
            }
            // A client that has seen enough closes the connection.
            let _ = stream.write_all(&reply).await;
            String::from_utf8(request).unwrap()
        });
        let result = request(admin, method, "/metrics").await.map_err(|failure| failure.to_string());
        (result, server.await.unwrap())
    }

    #[tokio::test]
    async fn a_body_is_read_plain_chunked_and_up_to_the_end() {
        for reply in [
            "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\na 1\nb\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\na 1\n\r\n2\r\nb\n\r\n0\r\n\r\n",
            "HTTP/1.0 200 OK\r\n\r\na 1\nb\n",
        ] {
            let (body, request) = asked(Method::GET, reply.into()).await;
            assert_eq!(body.as_deref(), Ok("a 1\nb\n"), "{reply}");
            assert!(
                request.starts_with("GET /metrics HTTP/1.1\r\n") && request.contains("host: 127.0.0.1:"),
                "{request}"
            );
        }
        let (body, request) = asked(Method::POST, b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()).await;
        assert_eq!((body.as_deref(), request.starts_with("POST /metrics ")), (Ok(""), true), "{request}");
    }

    #[tokio::test]
    async fn only_a_2xx_of_moderate_size_is_a_success() {
        let large = [&b"HTTP/1.1 200 OK\r\n\r\n"[..], &vec![b'x'; MAX_BODY_BYTES + 1]].concat();
        let replies = [
            b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec(),
            b"SSH-2.0\r\n".to_vec(),
            Vec::new(),
            large,
        ];
        for (reply, why) in replies.into_iter().zip(["404 Not Found", "", "", "length limit"]) {
            let failed = asked(Method::GET, reply).await.0.unwrap_err();
            assert!(
                failed.starts_with("GET /metrics at 127.0.0.1:")
                    && failed.contains(" failed: ")
                    && failed.contains(why),
                "{failed}"
            );
        }
    }
}
