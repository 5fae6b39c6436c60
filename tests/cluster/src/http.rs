//! The least of an HTTP client, for the admin ports of nodes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(5);

/// Asks for a path. Gives the status and the body.
///
/// # Errors
/// Nobody listens there, or what answers speaks no HTTP.
pub fn get(admin: SocketAddr, path: &str) -> Result<(u16, String), String> {
    exchange(admin, "GET", path, "")
}

/// As [`get`], with the value of the header `authorization`.
///
/// # Errors
/// As for [`get`].
pub fn get_with(admin: SocketAddr, path: &str, authorization: &str) -> Result<(u16, String), String> {
    exchange(admin, "GET", path, &format!("authorization: {authorization}\r\n"))
}

/// Posts to a path that takes no body.
///
/// # Panics
/// If the answer is not 200.
pub fn post(admin: SocketAddr, path: &str) {
    assert_eq!(exchange(admin, "POST", path, "").map(|(status, _)| status), Ok(200), "{path}");
}

/// Posts to a path that takes no body. Gives the status.
///
/// # Errors
/// As for [`get`].
pub fn send(admin: SocketAddr, path: &str) -> Result<u16, String> {
    exchange(admin, "POST", path, "").map(|(status, _)| status)
}

/// How many operations of a node's disk are held back.
///
/// # Panics
/// If the node does not say.
#[must_use]
pub fn held(admin: SocketAddr) -> usize {
    let (status, body) = get(admin, "/faults/held").expect("the node answers");
    assert_eq!(status, 200, "{body}");
    body.trim().parse().expect("a number")
}

/// A node's metric, summed over its labels.
///
/// # Panics
/// If the node does not answer, or has no such metric.
#[must_use]
pub fn metric(admin: SocketAddr, name: &str) -> f64 {
    let (_, text) = get(admin, "/metrics").expect("the node answers");
    let is_it = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
    let values: Vec<f64> =
        text.lines().filter(is_it).filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect();
    assert!(!values.is_empty(), "there is no metric {name} in\n{text}");
    values.iter().sum()
}

fn exchange(admin: SocketAddr, verb: &str, path: &str, headers: &str) -> Result<(u16, String), String> {
    let mut stream = TcpStream::connect_timeout(&admin, PATIENCE).map_err(|why| format!("{admin}: {why}"))?;
    let mut talk = || {
        stream.set_read_timeout(Some(PATIENCE))?;
        let ends = "content-length: 0\r\nconnection: close\r\n\r\n";
        write!(stream, "{verb} {path} HTTP/1.1\r\nhost: {admin}\r\n{headers}{ends}")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map(|_| answer)
    };
    let answer = talk().map_err(|why: std::io::Error| format!("{admin}{path}: {why}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| format!("{admin}{path}: no HTTP: {answer:?}"))?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    status.map(|status| (status, body.to_owned())).ok_or_else(|| format!("{admin}{path}: no HTTP: {head:?}"))
}
