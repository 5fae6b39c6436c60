//! The place for the nodes: a network, disks and wall clocks for each of them, as far as the machine allows.
//!
//! With namespaces, [`enter`] runs the storm again in a network, mount and process namespace of its own. In it each
//! node has a network namespace, joined to a bridge by a veth pair, and a tmpfs as its disk. The kernel removes all of
//! it, and ends every node, when the process in the middle ends for whatever reason. A packet is dropped at its
//! receiver, by a routing rule for its sender: that needs neither nftables nor a classifier in the kernel.
//!
//! Without namespaces the nodes are on loopback addresses, are cut apart by their own fault injection, in both
//! directions only, and share a disk. Wall clocks are set off by a library (`clock.c`) that is compiled and preloaded.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{FallocateFlags, fallocate};

use rejoin_test_cluster::{Seat, binary, name};

use crate::plan::{Fault, Place, is_one_way};
use crate::{NODES, ZONES};

/// The network of the nodes. It exists in namespaces of this process only, so it can be in nobody's way.
const NET: &str = "10.77.0";
/// The clients' host in it.
const CLIENTS_HOST: u8 = 254;
/// The size of a node's disk.
const DISK_MB: u32 = 256;
/// The file that takes what room is left on a disk.
const FILLER: &str = "filler";
/// The variable that names the file which `clock.c` reads.
const CLOCK_FILE: &str = "REJOIN_STORM_CLOCK";

/// What must work for a storm in namespaces.
const PROBE: &str = "set -e
    mount -t tmpfs tmpfs /run && mkdir /run/netns
    ip netns add probe && ip link add b type bridge && ip link add v type veth peer name eth0 netns probe
    ip -n probe rule add pref 10 from 10.77.0.1 blackhole
    nsenter --net=/run/netns/probe true";

/// What a process is run by so that it is in namespaces of its own, or why there are none.
///
/// # Errors
/// The machine, or this user, has none.
pub fn enter() -> Result<Command, String> {
    let namespaces =
        ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private"];
    let mut why = String::new();
    // As root, or as one who may be root in a user namespace.
    for user in [&[][..], &["--user", "--map-root-user"]] {
        let by = || {
            let mut command = Command::new("unshare");
            command.args(user).args(namespaces);
            command
        };
        match run(by().args(["sh", "-c", PROBE])) {
            Ok(()) => return Ok(by()),
            Err(instead) => why = instead,
        }
    }
    Err(why)
}

/// Where the nodes live.
#[derive(Debug)]
pub struct Ground {
    /// The directory of all files.
    pub dir: PathBuf,
    /// Whether each node has a network namespace and a disk of its own.
    namespaces: bool,
    /// The library that sets a wall clock off.
    clock: Option<PathBuf>,
    /// What this machine cannot do, and why.
    pub lacks: Vec<String>,
}

impl Ground {
    /// Makes the place for all nodes, in an empty directory.
    ///
    /// # Errors
    /// The namespaces in which this process is do not let it.
    pub fn make(dir: &Path, namespaces: Result<(), String>) -> Result<Self, String> {
        let mut ground =
            Self { dir: dir.to_path_buf(), namespaces: namespaces.is_ok(), clock: None, lacks: Vec::new() };
        for node in 0..NODES {
            fs::create_dir(ground.data(node)).map_err(|why| format!("{}: {why}", ground.data(node).display()))?;
            ground.set_clock(node, 0)?;
        }
        match namespaces {
            Ok(()) => ground.spread()?,
            Err(why) => ground.lacks.push(format!(
                "no network namespaces ({why}): nodes are on loopback addresses, without one-way cuts, cuts from \
                 clients and full disks"
            )),
        }
        match compile_clock(dir) {
            Ok(library) => ground.clock = Some(library),
            Err(why) => ground.lacks.push(format!("no clock jumps: {why}")),
        }
        Ok(ground)
    }

    /// The network and the disks.
    fn spread(&self) -> Result<(), String> {
        run(Command::new("mount").args(["-t", "tmpfs", "tmpfs", "/run"]))?;
        fs::create_dir("/run/netns").map_err(|why| format!("/run/netns: {why}"))?;
        ip(&["link", "set", "lo", "up"])?;
        ip(&["link", "add", "middle", "type", "bridge"])?;
        ip(&["link", "set", "middle", "up"])?;
        ip(&["addr", "add", &format!("{NET}.{CLIENTS_HOST}/24"), "dev", "middle"])?;
        rules_first(&[])?;
        for node in 0..NODES {
            let (space, port) = (space(node), format!("port{node}"));
            ip(&["netns", "add", &space])?;
            ip(&["link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &space])?;
            ip(&["link", "set", &port, "master", "middle", "up"])?;
            let inside = ["-n", &space];
            for of in ["lo", "eth0"] {
                ip(&[&inside[..], &["link", "set", of, "up"]].concat())?;
            }
            ip(&[&inside[..], &["addr", "add", &format!("{}/24", host(Place::Node(node))), "dev", "eth0"]].concat())?;
            rules_first(&inside)?;
            let size = format!("size={DISK_MB}m");
            run(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(self.data(node)))?;
        }
        Ok(())
    }

    /// Where a node is to listen.
    #[must_use]
    pub fn seat(&self, node: u8) -> Seat {
        let (of, zone) = (name(&Place::Node(node).to_string()), Some(name(&format!("z{}", node % ZONES + 1))));
        if !self.namespaces {
            return Seat::on_loopback(of, zone);
        }
        let at = |port: u16| format!("{}:{port}", host(Place::Node(node))).parse().expect("an address");
        Seat { name: of, address: at(7400), admin: at(7500), zone }
    }

    /// What a node is started by.
    #[must_use]
    pub fn command(&self, node: u8) -> Command {
        let mut command = if self.namespaces {
            let mut command = Command::new("nsenter");
            command.arg(format!("--net=/run/netns/{}", space(node))).arg("--").arg(binary());
            command
        } else {
            Command::new(binary())
        };
        if let Some(library) = &self.clock {
            command.env("LD_PRELOAD", library).env(CLOCK_FILE, self.clock_file(node));
        }
        command
    }

    /// Why a fault cannot be done here.
    #[must_use]
    pub fn lacks_for(&self, fault: &Fault) -> Option<&'static str> {
        let needs_namespaces = match fault {
            Fault::Cut(links) => is_one_way(links) || links.iter().any(|(from, _)| *from == Place::Clients),
            Fault::FullDisk(..) => true,
            Fault::Clock(..) => return self.clock.is_none().then_some("no clock of its own"),
            Fault::Kill(_) | Fault::Pause(_) | Fault::Wipe(_) => false,
        };
        (needs_namespaces && !self.namespaces).then_some("no namespaces")
    }

    /// Whether nodes are to cut connections themselves.
    #[must_use]
    pub fn nodes_cut(&self) -> bool {
        !self.namespaces
    }

    /// Drops the packets of one place at another, or no more.
    ///
    /// # Errors
    /// The kernel does not.
    pub fn drop_packets(&self, from: Place, to: Place, drop: bool) -> Result<(), String> {
        let verb = if drop { "add" } else { "del" };
        let rule = ["rule", verb, "pref", "10", "from", &host(from), "blackhole"];
        match to {
            Place::Node(node) => ip(&[&["-n", &space(node)][..], &rule].concat()),
            Place::Clients => ip(&rule),
        }
    }

    /// A node's data directory.
    #[must_use]
    pub fn data(&self, node: u8) -> PathBuf {
        self.dir.join(format!("{}.data", Place::Node(node)))
    }

    /// Removes everything from a node's data directory.
    ///
    /// # Errors
    /// Something cannot be removed.
    pub fn wipe(&self, node: u8) -> Result<(), String> {
        let data = self.data(node);
        let empty = || -> std::io::Result<()> {
            for entry in fs::read_dir(&data)? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    fs::remove_dir_all(entry.path())
                } else {
                    fs::remove_file(entry.path())
                }?;
            }
            Ok(())
        };
        empty().map_err(|why| format!("{}: {why}", data.display()))
    }

    /// Takes all room of a node's disk, to the last block.
    ///
    /// # Errors
    /// The file that takes it cannot be opened.
    pub fn fill(&self, node: u8) -> Result<(), String> {
        let path = self.data(node).join(FILLER);
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = file.map_err(|why| format!("{}: {why}", path.display()))?;
        let mut size = file.metadata().map_or(0, |of| of.len());
        for chunk in [16 << 20, 1 << 20, 64 << 10, 4 << 10] {
            while fallocate(&file, FallocateFlags::empty(), size, chunk).is_ok() {
                size += chunk;
            }
        }
        Ok(())
    }

    /// Makes room again.
    pub fn free(&self, node: u8) {
        // It is not there if the disk was wiped meanwhile.
        let _ = fs::remove_file(self.data(node).join(FILLER));
    }

    /// Sets a node's wall clock that far off, also while it runs.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn set_clock(&self, node: u8, skew_ms: i64) -> Result<(), String> {
        let path = self.clock_file(node);
        let write = || -> std::io::Result<()> {
            // Written in place: the node has it mapped.
            let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path)?;
            file.write_all_at(&(skew_ms * 1_000_000).to_ne_bytes(), 0)
        };
        write().map_err(|why| format!("{}: {why}", path.display()))
    }

    fn clock_file(&self, node: u8) -> PathBuf {
        self.dir.join(format!("{}.clock", Place::Node(node)))
    }
}

fn space(node: u8) -> String {
    format!("node{node}")
}

fn host(place: Place) -> String {
    match place {
        Place::Node(node) => format!("{NET}.{}", node + 1),
        Place::Clients => format!("{NET}.{CLIENTS_HOST}"),
    }
}

/// Lets rules for senders come before the table of local addresses, by which packets are received.
fn rules_first(inside: &[&str]) -> Result<(), String> {
    ip(&[inside, &["rule", "add", "pref", "100", "lookup", "local"]].concat())?;
    ip(&[inside, &["rule", "del", "pref", "0"]].concat())
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    run(Command::new("ip").args(arguments))
}

fn run(command: &mut Command) -> Result<(), String> {
    let shown = command_line(command);
    let ran = command.stdin(Stdio::null()).output().map_err(|why| format!("{shown}: {why}"))?;
    let talk = String::from_utf8_lossy(&ran.stderr);
    if ran.status.success() { Ok(()) } else { Err(format!("{shown}: {}", talk.trim().replace('\n', "; "))) }
}

fn command_line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    // The probe is a script of several lines.
    words.map(|word| word.to_string_lossy()).take_while(|word| !word.contains('\n')).collect::<Vec<_>>().join(" ")
}

/// Compiles the library, and looks whether it moves the clock of a process.
fn compile_clock(dir: &Path) -> Result<PathBuf, String> {
    let (source, library, offset) = (dir.join("clock.c"), dir.join("clock.so"), dir.join("probe.clock"));
    let year_ns: i64 = 400 * 86_400 * 1_000_000_000;
    fs::write(&source, include_str!("../clock.c")).map_err(|why| format!("{}: {why}", source.display()))?;
    fs::write(&offset, year_ns.to_ne_bytes()).map_err(|why| format!("{}: {why}", offset.display()))?;
    run(Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source))?;
    let year = |preload: bool| {
        let mut date = Command::new("date");
        date.arg("+%s").env(CLOCK_FILE, &offset);
        if preload {
            date.env("LD_PRELOAD", &library);
        }
        let out = date.output().map_err(|why| format!("date: {why}"))?.stdout;
        String::from_utf8_lossy(&out).trim().parse::<i64>().map_err(|why| format!("date: {why}"))
    };
    let moved = year(true)? - year(false)?;
    if (moved - year_ns / 1_000_000_000).abs() < 60 {
        Ok(library)
    } else {
        Err("a preloaded library does not reach the clock of a process here".to_owned())
    }
}
