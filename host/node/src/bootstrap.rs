//! Checks the `[[bootstrap]]` list, and compares it with the stored layout.

use std::net::{IpAddr, SocketAddr};

use rejoin_proto::layout::MAX_NODES;
use rejoin_proto::{Address, Layout, LayoutNode, Name, NodeId, Ring};

use crate::config::{BootstrapNode, Config, ConfigError};

/// The list as nodes of a layout.
pub(crate) fn members(list: &[BootstrapNode]) -> Vec<LayoutNode> {
    let member = |node: &BootstrapNode| LayoutNode {
        id: NodeId::from_name(&node.name),
        name: node.name.clone(),
        zone: node.zone.clone(),
        capacity: node.capacity,
        address: node.address.clone(),
    };
    list.iter().map(member).collect()
}

/// Refuses a list that cannot work for any cluster, and a `listen` address at which no peer can reach this node.
pub(crate) fn check(config: &Config) -> Result<(), ConfigError> {
    let list = &config.bootstrap;
    if list.len() > MAX_NODES {
        return Err(invalid(
            "bootstrap",
            format!("a cluster has at most {MAX_NODES} nodes, and the list names {}", list.len()),
        ));
    }
    for (at, node) in list.iter().enumerate() {
        check_node(at, node, &list[..at])?;
    }
    check_joining(config)?;
    check_listen(config, &config.listen)
}

/// Refuses a node that would both begin a cluster and join one, and addresses that cannot be dialled.
fn check_joining(config: &Config) -> Result<(), ConfigError> {
    if !config.join.is_empty() && !config.bootstrap.is_empty() {
        let why = "a node either begins a cluster, by a [[bootstrap]] list, or joins a running one: keep one of both";
        return Err(invalid("join", why.into()));
    }
    let own = config.address.iter().map(|address| ("address".to_owned(), address));
    let joined = config.join.iter().enumerate().map(|(at, address)| (format!("join[{at}]"), address));
    for (key, address) in own.chain(joined) {
        if address.port() == 0 {
            return Err(invalid(&key, format!("{address} has port 0; write the port at which the node is reached")));
        }
        if let Some(what) = address.ip().and_then(|address| unusable(address.ip())) {
            return Err(invalid(&key, format!("{address} is {what}; write an address at which the node is reached")));
        }
    }
    Ok(())
}

/// Refuses a `listen` address at which no peer can reach this node.
pub(crate) fn check_listen(config: &Config, listen: &Address) -> Result<(), ConfigError> {
    match config.bootstrap.iter().find(|node| node.name == config.name) {
        Some(own) => unreachable_at(listen, &own.address).map_or(Ok(()), |why| Err(invalid("listen", why))),
        None => Ok(()),
    }
}

fn check_node(at: usize, node: &BootstrapNode, before: &[BootstrapNode]) -> Result<(), ConfigError> {
    let BootstrapNode { name, address, capacity, .. } = node;
    let key = |field: &str| format!("bootstrap[{at}].{field}");
    if before.iter().any(|other| other.name == *name) {
        let why =
            format!("node {name} stands in the list twice; write each node once, under the name in its certificate");
        return Err(invalid(&key("name"), why));
    }
    if let Some(other) = before.iter().find(|other| other.address.plain() == address.plain()) {
        let why = format!(
            "{address} is also the address of {}; write for each node the address at which it alone is reached",
            other.name
        );
        return Err(invalid(&key("address"), why));
    }
    if address.port() == 0 {
        return Err(invalid(
            &key("address"),
            format!("{address} has port 0; write the port at which the others reach {name}"),
        ));
    }
    if let Some(what) = address.ip().and_then(|address| unusable(address.ip())) {
        let why = format!("{address} is {what}; write the address at which the others reach {name}");
        return Err(invalid(&key("address"), why));
    }
    if *capacity == 0 {
        return Err(invalid(&key("capacity"), "must be at least 1".into()));
    }
    Ok(())
}

/// Why no node can have that IP address.
fn unusable(ip: IpAddr) -> Option<&'static str> {
    let ip = ip.to_canonical();
    if ip.is_unspecified() {
        Some("every address of a machine, and none that can be dialled")
    } else if ip.is_multicast() || matches!(ip, IpAddr::V4(ip) if ip.is_broadcast()) {
        Some("the address of many machines")
    } else {
        None
    }
}

/// Why a node that listens there certainly cannot be reached at its address in the list. Routers in between may
/// translate addresses and ports; within this machine nothing does.
fn unreachable_at(listen: &Address, own: &Address) -> Option<String> {
    let write = |what: &dyn std::fmt::Display| {
        Some(format!("{listen} is not where the [[bootstrap]] list says this node is; write {what}"))
    };
    if listen.port() == 0 {
        return Some(format!(
            "port 0 is any free one, and the [[bootstrap]] list says this node is at {own}; write port {}",
            own.port()
        ));
    }
    let (listens, reached) = (listen.ip()?.ip().to_canonical(), own.ip()?);
    let (address, port) = (reached.ip().to_canonical(), reached.port());
    let same_port = listen.port() == port;
    let reachable = if listens.is_unspecified() {
        if listens.is_ipv4() && address.is_ipv6() {
            return write(&format_args!("[::]:{}, since 0.0.0.0 takes IPv4 alone and {own} is IPv6", listen.port()));
        }
        same_port || !address.is_loopback()
    } else if listens.is_loopback() || address.is_loopback() || listens == address {
        listens == address && same_port
    } else {
        true
    };
    if reachable {
        return None;
    }
    let anywhere = if address.is_ipv4() { "0.0.0.0" } else { "[::]" };
    write(&format_args!("{own}, or {anywhere}:{port}, or correct the list: it says {}", SocketAddr::new(address, port)))
}

/// The newest layout of a ring, with the addresses that the nodes have announced since.
pub(crate) fn with_addresses(ring: &Ring) -> Layout {
    let mut layout = ring.newest().clone();
    for node in &mut layout.nodes {
        if let Some(announced) = ring.notes.announced.get(&node.id) {
            node.address = announced.address.clone();
        }
    }
    layout
}

/// The differences between a stored layout and the list, one line each. An empty list has none. A node that starts
/// announces its own address, so that is not compared.
pub(crate) fn contradictions(own: &Name, list: &[BootstrapNode], kept: &Layout) -> Vec<String> {
    let mut found = Vec::new();
    for node in list {
        let Some(known) = kept.node(NodeId::from_name(&node.name)) else {
            found.push(format!("the [[bootstrap]] list names node {}, and the kept layout does not", node.name));
            continue;
        };
        let mut differs = |what: &str, file: &dyn std::fmt::Display, layout: &dyn std::fmt::Display| {
            found.push(format!(
                "{what} of node {} is {file} in the [[bootstrap]] list, and {layout} in the kept layout",
                node.name
            ));
        };
        if node.name != *own && node.address.plain() != known.address.plain() {
            differs("the address", &node.address, &known.address);
        }
        if node.zone != known.zone {
            differs("the zone", &node.zone, &known.zone);
        }
        if node.capacity != known.capacity {
            differs("the capacity", &node.capacity, &known.capacity);
        }
    }
    let unlisted =
        kept.nodes.iter().filter(|node| !list.is_empty() && !list.iter().any(|listed| listed.name == node.name));
    found.extend(
        unlisted.map(|node| format!("the kept layout has node {}, and the [[bootstrap]] list does not", node.name)),
    );
    found
}

/// The line that follows the differences.
pub(crate) const KEPT: &str =
    "the kept layout is in use, since the list is only read at a node's first start: make the list say the same";

fn invalid(key: &str, message: String) -> ConfigError {
    ConfigError::Invalid { key: key.into(), message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn config(listen: &str, nodes: &[(&str, &str)]) -> Result<Config, String> {
        let mut text = format!(
            "name = \"n1\"\nlisten = \"{listen}\"\ndata = \"d\"\nca = \"c\"\ncertificate = \"c\"\nkey = \"k\"\nsecret \
                = \"s\"\n"
        );
        for (name, address) in nodes {
            text.push_str(&format!("[[bootstrap]]\nname = \"{name}\"\naddress = \"{address}\"\n"));
        }
        Config::parse(&text, Path::new("/")).map_err(|error| error.to_string())
    }

    #[track_caller]
    fn refused(listen: &str, nodes: &[(&str, &str)], key: &str, words: &str) {
        let said = config(listen, nodes).expect_err("must be refused");
        assert!(said.starts_with(key) && said.contains(words), "{said}");
    }

    #[test]
    fn a_list_that_no_cluster_can_work_with_is_refused_with_what_to_write() {
        let (n1, n2) = (("n1", "10.0.0.1:7400"), ("n2", "10.0.0.2:7400"));
        assert!(config("10.0.0.1:7400", &[n1, n2]).is_ok());
        let listen = "10.0.0.1:7400";
        refused(
            listen,
            &[n1, ("n2", "10.0.0.1:7400")],
            "bootstrap[1].address: ",
            "is also the address of n1; write for each node",
        );
        refused(listen, &[n1, ("n2", "[::ffff:10.0.0.1]:7400")], "bootstrap[1].address: ", "is also the address of n1");
        refused(
            listen,
            &[n1, n2, ("n1", "10.0.0.3:7400")],
            "bootstrap[2].name: ",
            "stands in the list twice; write each node once",
        );
        refused(
            listen,
            &[n1, ("n2", "db.example:7400"), ("n3", "DB.example.:7400")],
            "bootstrap[2].address: ",
            "the address of n2",
        );
        for nobody in ["0.0.0.0:7400", "[::]:7400", "[::ffff:0.0.0.0]:7400"] {
            refused(
                listen,
                &[n1, ("n2", nobody)],
                "bootstrap[1].address: ",
                "none that can be dialled; write the address at which the others",
            );
        }
        refused(listen, &[n1, ("n2", "224.0.0.1:7400")], "bootstrap[1].address: ", "the address of many machines");
        refused(
            listen,
            &[n1, ("n2", "255.255.255.255:7400")],
            "bootstrap[1].address: ",
            "the address of many machines",
        );
        refused(listen, &[n1, ("n2", "10.0.0.2:0")], "bootstrap[1].address: ", "has port 0; write the port");
        refused(listen, &[n1, ("n2", "db.example:0")], "bootstrap[1].address: ", "has port 0; write the port");
        refused(listen, &[n1, ("n2", "10.0.0.2")], "bootstrap[1].address: ", "the port is missing: write HOST:PORT");
        refused(listen, &[n1, ("n2", "2001:db8::1:7400")], "bootstrap[1].address: ", "stands in brackets");
    }

    #[test]
    fn a_listen_address_at_which_nobody_would_reach_this_node_is_refused() {
        for (listen, own) in [
            ("127.0.0.1:7400", "10.0.0.1:7400"),
            ("127.0.0.1:7400", "127.0.0.2:7400"),
            ("127.0.0.1:7400", "127.0.0.1:7401"),
            ("10.0.0.1:7400", "127.0.0.1:7400"),
            ("10.0.0.1:7400", "10.0.0.1:7401"),
            ("0.0.0.0:7400", "127.0.0.1:7401"),
            ("0.0.0.0:7400", "[2001:db8::1]:7400"),
            ("10.0.0.1:0", "10.0.0.1:7400"),
            ("n1.example:0", "n1.example:7400"),
        ] {
            refused(listen, &[("n1", own), ("n2", "10.0.0.9:7400")], "listen: ", "write ");
        }
        for (listen, own) in [
            ("127.0.0.1:7400", "127.0.0.1:7400"),
            ("0.0.0.0:7400", "10.0.0.1:7400"),
            ("0.0.0.0:7400", "10.0.0.1:30400"), // a port that is mapped
            ("[::]:7400", "10.0.0.1:7400"),
            ("[::]:7400", "[2001:db8::1]:7400"),
            ("172.17.0.2:7400", "203.0.113.7:7400"), // an address that is translated
            ("0.0.0.0:7400", "n1.example:7400"),
            ("n1.example:7400", "n1.example:7400"),
        ] {
            let taken = config(listen, &[("n1", own), ("n2", "10.0.0.9:7400")]);
            assert!(taken.is_ok(), "listen = {listen}, address = {own}: {taken:?}");
        }
    }

    #[test]
    fn a_kept_layout_is_compared_with_the_list_name_by_name() {
        let good = config("10.0.0.1:7400", &[("n1", "10.0.0.1:7400"), ("n2", "10.0.0.2:7400")]).expect("a good one");
        let kept = rejoin_core::placement::bootstrap(members(&good.bootstrap), 16).expect("a layout");
        let own = Name::new("n1").expect("a name");
        assert!(contradictions(&own, &good.bootstrap, &kept).is_empty());
        assert!(contradictions(&own, &[], &kept).is_empty(), "a list that is gone says nothing");
        let mut turned = good.bootstrap.clone();
        turned.reverse();
        assert!(contradictions(&own, &turned, &kept).is_empty());
        assert_eq!(
            rejoin_core::placement::bootstrap(members(&turned), 16),
            Ok(kept.clone()),
            "the order decides nothing"
        );

        let mut changed = good.bootstrap.clone();
        (changed[0].capacity, changed[0].zone) = (3, rejoin_proto::Name::new("east").expect("a name"));
        changed[1] = BootstrapNode { name: rejoin_proto::Name::new("n3").expect("a name"), ..changed[1].clone() };
        let found = contradictions(&own, &changed, &kept);
        for words in ["zone of node n1 is east", "capacity of node n1 is 3", "names node n3", "kept layout has node n2"]
        {
            assert!(found.iter().any(|line| line.contains(words)), "{words}: {found:?}");
        }
        changed = good.bootstrap.clone();
        changed[1].address = ([10, 0, 0, 3], 7400).into();
        assert_eq!(
            contradictions(&own, &changed, &kept),
            ["the address of node n2 is 10.0.0.3:7400 in the [[bootstrap]] list, and 10.0.0.2:7400 in the kept layout"]
        );
    }
}
