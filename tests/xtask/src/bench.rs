//! `bench` and `bench-peers`: figures of this machine, never a pass or a failure.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::{print, setup};

/// What Redis has to have in its path, or in `REDIS_SERVER`.
const REDIS: &str = "redis-server";
/// How long a Redis server may take to answer, or to have its replicas.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long each run is, in seconds.
const SECONDS: &str = "10";

/// The parts and the whole, and how far the one is from the other.
///
/// # Errors
/// The binaries are not there, or do not run.
pub(crate) fn distance(root: &Path) -> Result<(), String> {
    let rejoin = released(root)?;
    let distance = rejoin.with_file_name("rejoin-bench-distance");
    run(Command::new(&distance).arg(&rejoin).arg(SECONDS))
}

/// A cluster and Redis with two replicas, under the same load by the same generator, one after the other.
///
/// # Errors
/// The binaries are not there, or something does not run.
pub(crate) fn peers(root: &Path) -> Result<(), String> {
    let redis = redis()?;
    let rejoin = released(root)?;
    let mut rows = Vec::new();
    for (policy, durability) in [("always", "fsync"), ("everysec", "os")] {
        for mode in ["put", "get"] {
            eprintln!("xtask: {mode}: Redis, appendfsync {policy}");
            let servers = Servers::start(&redis, policy)?;
            let report = bench(&rejoin, &[mode], &servers.arguments())?;
            rows.push(row(&format!("Redis + 2 replicas, AOF {policy}, WAIT 1"), mode, &report)?);
            drop(servers);
            eprintln!("xtask: {mode}: rejoin, durability {durability}");
            let report = bench(&rejoin, &[mode, "--durability", durability, "--dev", "3"], &[])?;
            rows.push(row(&format!("rejoin, 3 nodes, durability {durability}"), mode, &report)?);
        }
    }
    print("| system | operation | rate /s | p50 | p99 | CPU of servers | CPU of the client | fdatasync p50 |");
    print("|---|---|---|---|---|---|---|---|");
    rows.iter().for_each(|row| print(row));
    Ok(())
}

/// The Redis server of this machine.
///
/// # Errors
/// There is none; the one line says what to do.
pub(crate) fn redis() -> Result<PathBuf, String> {
    runs(std::env::var_os("REDIS_SERVER").map_or_else(|| PathBuf::from(REDIS), PathBuf::from))
}

fn runs(redis: PathBuf) -> Result<PathBuf, String> {
    let mut command = Command::new(&redis);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if command.status().is_ok_and(|status| status.success()) {
        return Ok(redis);
    }
    Err(format!(
        "{} does not run: install Redis (Debian: apt-get install redis-server) or name it in REDIS_SERVER",
        redis.display()
    ))
}

/// The `rejoin` that was built with `--release`.
fn released(root: &Path) -> Result<PathBuf, String> {
    let debug = setup::binary(root, "rejoin")?;
    let release =
        debug.ancestors().nth(2).map(|target| target.join("release").join(debug.file_name().unwrap_or_default()));
    release
        .filter(|path| path.is_file())
        .ok_or_else(|| format!("no rejoin was built with --release beside {}", debug.display()))
}

fn run(command: &mut Command) -> Result<(), String> {
    let status = command.status().map_err(|why| format!("{command:?} could not be started: {why}"))?;
    if status.success() { Ok(()) } else { Err(format!("{command:?} failed: {status}")) }
}

/// What one run of `rejoin bench` prints as JSON.
fn bench(rejoin: &Path, load: &[&str], more: &[String]) -> Result<String, String> {
    let mut command = Command::new(rejoin);
    command.arg("bench").args(load).args(more).args(["--json", "--seconds", SECONDS]).stderr(Stdio::inherit());
    let output = command.output().map_err(|why| format!("{command:?} could not be started: {why}"))?;
    if !output.status.success() {
        return Err(format!("{command:?} failed: {}", output.status));
    }
    String::from_utf8(output.stdout).map_err(|why| format!("{command:?} gave no text: {why}"))
}

fn row(system: &str, mode: &str, report: &str) -> Result<String, String> {
    let number =
        |path: &[&str]| number(report, path).ok_or_else(|| format!("the report has no {}: {report}", path.join(".")));
    let ms = |path: &[&str]| Ok::<_, String>(number(path)? / 1e3);
    let (p50, p99, sync) = (ms(&["latency", "p50_us"])?, ms(&["latency", "p99_us"])?, ms(&["fdatasync", "p50_us"])?);
    let (rate, server, client) = (number(&["rate"])?, number(&["server_cpu_us"])?, number(&["client_cpu_us"])?);
    Ok(format!(
        "| {system} | {mode} | {rate:.0} | {p50:.2} ms | {p99:.2} ms | {server:.1} µs | {client:.1} µs | {sync:.2} ms |"
    ))
}

/// A number in a JSON document of the shape that `rejoin bench` prints: each name of the path is looked for behind the
/// one before it.
fn number(json: &str, path: &[&str]) -> Option<f64> {
    let mut rest = json;
    for name in path {
        let at = rest.find(&format!("\"{name}\":"))?;
        rest = &rest[at + name.len() + 3..];
    }
    let end = rest.find([',', '}']).unwrap_or(rest.len());
    rest[..end].parse().ok()
}

/// A Redis server and two replicas of it, in a directory of their own. Dropped, all of it goes.
struct Servers {
    dir: PathBuf,
    ports: Vec<u16>,
    running: Vec<Child>,
}

impl Servers {
    fn start(redis: &Path, appendfsync: &str) -> Result<Self, String> {
        let dir = std::env::temp_dir().join(format!("rejoin-peers-{}-{appendfsync}", std::process::id()));
        let mut servers = Self { dir, ports: free_ports(3)?, running: Vec::new() };
        for number in 0..servers.ports.len() {
            let home = servers.dir.join(number.to_string());
            fs::create_dir_all(&home).map_err(|why| format!("{} cannot be made: {why}", home.display()))?;
            let mut command = Command::new(redis);
            command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "yes", "--appendfsync", appendfsync]);
            command.arg("--port").arg(servers.ports[number].to_string()).arg("--dir").arg(&home);
            if number > 0 {
                command.args(["--replicaof", "127.0.0.1"]).arg(servers.ports[0].to_string());
            }
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            servers
                .running
                .push(command.spawn().map_err(|why| format!("{} could not be started: {why}", redis.display()))?);
        }
        servers.wait_for_replicas()?;
        Ok(servers)
    }

    /// Until the first has both replicas on line.
    fn wait_for_replicas(&self) -> Result<(), String> {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if info(self.ports[0]).is_ok_and(|info| info.matches("state=online").count() == self.ports.len() - 1) {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(50));
        }
        Err("the replicas of Redis did not come on line".to_owned())
    }

    /// What `rejoin bench` is to be told of them.
    fn arguments(&self) -> Vec<String> {
        let mut arguments =
            vec!["--redis".to_owned(), format!("127.0.0.1:{}", self.ports[0]), "--wait".to_owned(), "1".to_owned()];
        arguments.extend(self.running.iter().flat_map(|child| ["--pid".to_owned(), child.id().to_string()]));
        arguments.extend(["--disk".to_owned(), self.dir.display().to_string()]);
        arguments
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for child in &mut self.running {
            // One that has ended by itself needs no end.
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// What a server says of its replication.
fn info(port: u16) -> std::io::Result<String> {
    use std::io::{Read, Write};
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"INFO replication\r\nQUIT\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Ports that nobody uses: all are held until all are chosen.
fn free_ports(count: usize) -> Result<Vec<u16>, String> {
    let held: Result<Vec<TcpListener>, _> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect();
    let held = held.map_err(|why| format!("no free port: {why}"))?;
    held.iter()
        .map(|listener| listener.local_addr().map(|address| address.port()).map_err(|why| why.to_string()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_where_they_stand() {
        let json = r#"{"rate":12.5,"latency":{"p50_us":3,"p99_us":40},"fdatasync":{"p50_us":150},"last":7}"#;
        assert_eq!(number(json, &["rate"]), Some(12.5));
        assert_eq!(
            (number(json, &["latency", "p99_us"]), number(json, &["fdatasync", "p50_us"])),
            (Some(40.0), Some(150.0))
        );
        assert_eq!((number(json, &["last"]), number(json, &["nothing"])), (Some(7.0), None));
        let report = r#"{"rate":1000.4,"client_cpu_us":2.0,"server_cpu_us":30.05,"latency":{"p50_us":1500,"p99_us":2500},"fdatasync":{"p50_us":90}}"#;
        assert_eq!(
            row("x", "put", report).unwrap(),
            "| x | put | 1000 | 1.50 ms | 2.50 ms | 30.1 µs | 2.0 µs | 0.09 ms |"
        );
        assert!(row("x", "put", "{}").unwrap_err().contains("has no latency.p50_us"));
    }

    #[test]
    fn a_missing_redis_gives_one_line_that_says_what_to_do() {
        let reason = runs("no-such-redis".into()).unwrap_err();
        assert!(
            reason.starts_with("no-such-redis does not run")
                && reason.contains("apt-get install")
                && !reason.contains('\n'),
            "{reason}"
        );
    }

    #[test]
    fn servers_are_told_to_the_benchmark_and_end_with_their_directory() {
        let dir = std::env::temp_dir().join(format!("rejoin-peers-test-{}", std::process::id()));
        fs::create_dir_all(dir.join("0")).unwrap();
        let child = Command::new("sleep").arg("600").spawn().unwrap();
        let pid = child.id().to_string();
        let servers = Servers { dir: dir.clone(), ports: free_ports(3).unwrap(), running: vec![child] };
        let arguments = servers.arguments().join(" ");
        assert!(
            arguments.contains(&format!("--redis 127.0.0.1:{} --wait 1 --pid {pid} --disk", servers.ports[0])),
            "{arguments}"
        );
        drop(servers);
        assert!(!dir.exists() && !Path::new("/proc").join(pid).exists());
    }
}
