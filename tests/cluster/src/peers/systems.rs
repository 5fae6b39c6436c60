//! The systems that are compared, and the servers of those that are not Rejoin.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::http;

/// How long servers may take until they serve.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often they are asked.
const POLL: Duration = Duration::from_millis(50);
/// Servers of each system, as many as a cluster has nodes.
const SERVERS: usize = 3;
/// How much an etcd may store: every write of a run stays, since nothing is compacted meanwhile.
const ETCD_BYTES: &str = "8589934592";

/// A system, with what it promises of an acknowledged write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum System {
    /// On the disks of two nodes, or in their memory.
    Rejoin { fsync: bool },
    /// On the disk of the master, or within a second; and in the memory of a replica.
    Redis { always: bool },
    /// On the disks of two members, or in their memory.
    Etcd { fsync: bool },
}

impl System {
    /// All of them. Those that promise the same stand together.
    pub(crate) const ALL: [Self; 6] = [
        Self::Rejoin { fsync: true },
        Self::Redis { always: true },
        Self::Etcd { fsync: true },
        Self::Rejoin { fsync: false },
        Self::Redis { always: false },
        Self::Etcd { fsync: false },
    ];

    /// Its name in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Rejoin { fsync: true } => "rejoin, 3 nodes, durability fsync",
            Self::Rejoin { fsync: false } => "rejoin, 3 nodes, durability os",
            Self::Redis { always: true } => "Redis + 2 replicas, AOF always, WAIT 1",
            Self::Redis { always: false } => "Redis + 2 replicas, AOF everysec, WAIT 1",
            Self::Etcd { fsync: true } => "etcd, 3 members, fsync, JSON gateway",
            Self::Etcd { fsync: false } => "etcd, 3 members, no fsync, JSON gateway",
        }
    }

    /// Which colour it has: one for each member of [`System::ALL`].
    pub(crate) fn color(self) -> usize {
        Self::ALL.iter().position(|system| *system == self).unwrap_or(0)
    }

    /// The program that has to be there, and the variable that may name it.
    pub(crate) fn program(self) -> Option<Program> {
        match self {
            Self::Rejoin { .. } => None,
            Self::Redis { .. } => {
                Some(Program { name: "redis-server", variable: "REDIS_SERVER", package: "redis-server" })
            }
            Self::Etcd { .. } => Some(Program { name: "etcd", variable: "ETCD_SERVER", package: "etcd-server" }),
        }
    }

    /// Starts what has to run before `rejoin bench`.
    ///
    /// # Errors
    /// A server does not serve in time.
    pub(crate) async fn start(self, work: &Path) -> Result<Running, String> {
        let Some(program) = self.program() else { return Ok(Running { system: self, servers: None }) };
        let mut servers = Servers::new(work)?;
        match self {
            Self::Redis { always } => {
                servers.start_redis(&program.path(), if always { "always" } else { "everysec" }).await?
            }
            Self::Etcd { fsync } => servers.start_etcd(&program.path(), fsync).await?,
            Self::Rejoin { .. } => {}
        }
        Ok(Running { system: self, servers: Some(servers) })
    }
}

/// A program of another project.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Program {
    pub(crate) name: &'static str,
    variable: &'static str,
    /// The package of Debian.
    package: &'static str,
}

impl Program {
    fn path(self) -> PathBuf {
        std::env::var_os(self.variable).map_or_else(|| PathBuf::from(self.name), PathBuf::from)
    }

    /// What to do where it does not run, in one line.
    pub(crate) fn missing(self) -> Option<String> {
        self.missing_at(&self.path())
    }

    fn missing_at(self, path: &Path) -> Option<String> {
        let mut command = Command::new(path);
        command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if command.status().is_ok_and(|status| status.success()) {
            return None;
        }
        let (name, variable, package) = (self.name, self.variable, self.package);
        Some(format!(
            "{name} is not measured: {} does not run. Install it (Debian: apt-get install {package}) or name it in \
             {variable}",
            path.display()
        ))
    }
}

/// A system that can be measured.
pub(crate) struct Running {
    pub(crate) system: System,
    /// None for Rejoin: `rejoin bench --dev` starts its nodes.
    servers: Option<Servers>,
}

impl Running {
    /// What `rejoin bench` is told of it.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let text = |word: &str| word.to_owned();
        let mut arguments = Vec::new();
        match (self.system, &self.servers) {
            (System::Rejoin { fsync }, _) => {
                arguments.extend(["--durability", if fsync { "fsync" } else { "os" }, "--dev", "3"].map(text));
            }
            (System::Redis { .. }, Some(servers)) => {
                arguments.extend([text("--redis"), servers.address(0).to_string(), text("--wait"), text("1")]);
            }
            (System::Etcd { .. }, Some(servers)) => {
                let members = (0..SERVERS).map(|member| servers.address(member).to_string());
                arguments.extend(members.flat_map(|member| [text("--etcd"), member]));
            }
            (_, None) => {}
        }
        if let Some(servers) = &self.servers {
            arguments.extend(servers.running.iter().flat_map(|child| [text("--pid"), child.id().to_string()]));
            arguments.extend([text("--disk"), servers.dir.path().display().to_string()]);
        }
        arguments
    }
}

/// Three servers in a directory of their own. Dropped, all of it goes.
struct Servers {
    /// For clients.
    ports: Vec<u16>,
    /// For each other.
    peer_ports: Vec<u16>,
    running: Vec<Child>,
    dir: TempDir,
}

impl Servers {
    fn new(work: &Path) -> Result<Self, String> {
        let dir = tempfile::Builder::new().prefix("servers-").tempdir_in(work);
        let dir = dir.map_err(|why| format!("{} cannot be written: {why}", work.display()))?;
        let mut ports = free_ports(2 * SERVERS)?;
        let peer_ports = ports.split_off(SERVERS);
        Ok(Self { ports, peer_ports, running: Vec::new(), dir })
    }

    fn address(&self, server: usize) -> SocketAddr {
        ([127, 0, 0, 1], self.ports[server]).into()
    }

    fn spawn(&mut self, program: &Path, arguments: Vec<String>) -> Result<(), String> {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().map_err(|why| format!("{} could not be started: {why}", program.display()))?;
        self.running.push(child);
        Ok(())
    }

    /// A master and its replicas.
    async fn start_redis(&mut self, program: &Path, appendfsync: &str) -> Result<(), String> {
        for server in 0..SERVERS {
            let home = self.dir.path().join(server.to_string());
            std::fs::create_dir_all(&home).map_err(|why| format!("{} cannot be made: {why}", home.display()))?;
            let mut line =
                format!("--bind 127.0.0.1 --appendonly yes --appendfsync {appendfsync} --port {}", self.ports[server]);
            // A rewrite of the log is done by a child, whose CPU time nobody would count.
            line.push_str(" --auto-aof-rewrite-percentage 0");
            if server > 0 {
                line.push_str(&format!(" --replicaof 127.0.0.1 {}", self.ports[0]));
            }
            let mut arguments: Vec<String> = line.split(' ').map(str::to_owned).collect();
            // An empty word, which no line can have: no snapshots beside the log.
            arguments.extend(["--save".to_owned(), String::new(), "--dir".to_owned(), home.display().to_string()]);
            self.spawn(program, arguments)?;
        }
        let port = self.ports[0];
        self.wait("the replicas of Redis did not come on line", || {
            info(port).is_ok_and(|info| info.matches("state=online").count() == SERVERS - 1)
        })
        .await
    }

    /// Three members.
    async fn start_etcd(&mut self, program: &Path, fsync: bool) -> Result<(), String> {
        for member in 0..SERVERS {
            let arguments = etcd_arguments(member, &self.ports, &self.peer_ports, self.dir.path(), fsync);
            self.spawn(program, arguments)?;
        }
        let members: Vec<SocketAddr> = (0..SERVERS).map(|member| self.address(member)).collect();
        self.wait("the members of etcd did not elect a leader", || {
            members.iter().all(|member| {
                http::get(*member, "/health").is_ok_and(|(status, body)| status == 200 && body.contains("true"))
            })
        })
        .await
    }

    async fn wait(&mut self, otherwise: &str, serve: impl Fn() -> bool) -> Result<(), String> {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if serve() {
                return Ok(());
            }
            for child in &mut self.running {
                if let Ok(Some(status)) = child.try_wait() {
                    return Err(format!("{otherwise}: one has ended by itself ({status})"));
                }
            }
            tokio::time::sleep(POLL).await;
        }
        Err(otherwise.to_owned())
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for child in &mut self.running {
            // One that has ended by itself needs no end.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn etcd_arguments(member: usize, ports: &[u16], peer_ports: &[u16], dir: &Path, fsync: bool) -> Vec<String> {
    let client = format!("http://127.0.0.1:{}", ports[member]);
    let peer = format!("http://127.0.0.1:{}", peer_ports[member]);
    let cluster: Vec<String> =
        peer_ports.iter().enumerate().map(|(member, port)| format!("m{member}=http://127.0.0.1:{port}")).collect();
    let name = format!("m{member}");
    let data = dir.join(&name).display().to_string();
    let cluster = cluster.join(",");
    let named = [
        ("--name", name.as_str()),
        ("--data-dir", &data),
        ("--listen-client-urls", &client),
        ("--advertise-client-urls", &client),
        ("--listen-peer-urls", &peer),
        ("--initial-advertise-peer-urls", &peer),
        ("--initial-cluster", &cluster),
        ("--initial-cluster-state", "new"),
        ("--quota-backend-bytes", ETCD_BYTES),
    ];
    let mut arguments: Vec<String> =
        named.into_iter().flat_map(|(name, value)| [name.to_owned(), value.to_owned()]).collect();
    if !fsync {
        arguments.push("--unsafe-no-fsync".to_owned());
    }
    arguments
}

/// What a Redis server says of its replication.
fn info(port: u16) -> std::io::Result<String> {
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
    fn a_missing_program_gives_one_line_that_says_what_to_do() {
        for system in [System::Redis { always: true }, System::Etcd { fsync: true }] {
            let program = system.program().unwrap();
            let reason = program.missing_at(Path::new("no-such-server")).unwrap();
            assert!(reason.starts_with(program.name) && reason.contains("no-such-server does not run"), "{reason}");
            assert!(reason.contains("apt-get install") && !reason.contains('\n'), "{reason}");
        }
        // Any program that knows --version is there.
        let program = Program { name: "cargo", variable: "CARGO", package: "cargo" };
        assert_eq!(program.missing(), None);
        assert_eq!(System::Rejoin { fsync: true }.program(), None);
    }

    #[tokio::test]
    async fn servers_are_told_to_the_benchmark_and_end_with_their_directory() {
        let work = tempfile::tempdir().unwrap();
        let mut servers = Servers::new(work.path()).unwrap();
        servers.spawn(Path::new("sleep"), vec!["600".to_owned()]).unwrap();
        let (pid, ports) = (servers.running[0].id(), servers.ports.clone());
        let redis = Running { system: System::Redis { always: true }, servers: Some(servers) };
        let line = redis.arguments().join(" ");
        assert!(line.starts_with(&format!("--redis 127.0.0.1:{} --wait 1 --pid {pid} --disk ", ports[0])), "{line}");
        let etcd = Running { system: System::Etcd { fsync: true }, ..redis };
        let line = etcd.arguments().join(" ");
        let members = [0, 1, 2].map(|member| format!("--etcd 127.0.0.1:{}", ports[member])).join(" ");
        assert!(line.starts_with(&members), "{line}");
        drop(etcd);
        assert_eq!(std::fs::read_dir(work.path()).unwrap().count(), 0);
        assert!(!Path::new("/proc").join(pid.to_string()).exists());
        let rejoin = System::Rejoin { fsync: false }.start(work.path()).await.unwrap();
        assert_eq!(rejoin.arguments(), ["--durability", "os", "--dev", "3"]);
    }

    #[tokio::test]
    async fn a_server_that_ends_by_itself_is_not_waited_for() {
        let work = tempfile::tempdir().unwrap();
        let mut servers = Servers::new(work.path()).unwrap();
        servers.spawn(Path::new("false"), Vec::new()).unwrap();
        let failed = servers.wait("it did not serve", || false).await.unwrap_err();
        assert!(failed.starts_with("it did not serve: one has ended by itself"), "{failed}");
    }

    #[test]
    fn members_of_etcd_know_each_other() {
        let line = etcd_arguments(1, &[1, 2, 3], &[4, 5, 6], Path::new("/d"), false).join(" ");
        for words in [
            "--name m1 --data-dir /d/m1",
            "--listen-client-urls http://127.0.0.1:2 ",
            "--listen-peer-urls http://127.0.0.1:5 ",
            "--initial-cluster m0=http://127.0.0.1:4,m1=http://127.0.0.1:5,m2=http://127.0.0.1:6 ",
            "--unsafe-no-fsync",
        ] {
            assert!(line.contains(words), "{words}: {line}");
        }
        let synced = etcd_arguments(0, &[1, 2, 3], &[4, 5, 6], Path::new("/d"), true);
        assert!(!synced.contains(&"--unsafe-no-fsync".to_owned()));
    }

    #[test]
    fn systems_have_names_and_colours_of_their_own() {
        for (number, system) in System::ALL.into_iter().enumerate() {
            assert_eq!(system.color(), number);
            let same = System::ALL.iter().filter(|other| other.name() == system.name()).count();
            assert_eq!(same, 1, "{}", system.name());
        }
    }
}
