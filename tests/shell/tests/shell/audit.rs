//! The audit log: what a node records of each command, and what it does not.

use std::path::Path;
use std::time::Duration;

use rejoin_client::ErrorKind;
use rejoin_client::admin::{
    Admin, AuditCommand, AuditEntry, AuditEvent, AuditHead, AuditOutcome, AuditRecord, BucketProps, ChainWalk, Grant,
    Limits, Name, Scope,
};
use rejoin_proto::client::{AdminRequest, ClientHello, PROTOCOL, Request, RequestBody};
use rejoin_proto::{LayoutRef, codec};
use rejoin_test_shell::{Setup, World, simulate};
use rejoin_wire::{Class, Identity};

const ONE: Setup = Setup { seed: 1, nodes: &["n1"], more: "", latency_ms: (1, 1) };

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn props() -> BucketProps {
    BucketProps { n: 1, ..BucketProps::default() }
}

/// All records of the node that answers, checked against each other.
async fn records(admin: &Admin) -> (AuditHead, Vec<AuditRecord>) {
    let mut page = admin.audit(1).await.unwrap();
    let (mut walk, mut all) = (ChainWalk::new(page.head.first, page.head.before), Vec::new());
    loop {
        assert_eq!((page.broken.take(), &page.notes), (None, &Vec::new()));
        page.records.iter().for_each(|record| walk.step(record).unwrap());
        all.append(&mut page.records);
        let Some(next) = page.next else { break };
        page = admin.audit(next).await.unwrap();
    }
    walk.end(&page.head).unwrap();
    (page.head, all)
}

async fn entries(admin: &Admin) -> Vec<AuditEntry> {
    records(admin).await.1.iter().map(|record| record.entry().unwrap()).collect()
}

/// The commands, with what came of each.
async fn commands(admin: &Admin) -> Vec<(AuditCommand, String)> {
    let events: Vec<AuditEvent> = entries(admin).await.into_iter().map(|entry| entry.event).collect();
    let outcome = |number: u64| {
        let ended = events.iter().find_map(|event| match event {
            AuditEvent::Ended { asked, outcome } if *asked == number => Some(outcome),
            _ => None,
        });
        match ended {
            Some(AuditOutcome::Done { after }) => format!("done, {}", if after.is_some() { "is there" } else { "-" }),
            Some(AuditOutcome::Refused { code, .. }) => format!("refused, {code:?}"),
            Some(AuditOutcome::Unanswered) => "unanswered".into(),
            None => "unknown".into(),
        }
    };
    let of = |(number, event): (u64, &AuditEvent)| match event {
        AuditEvent::Asked(command) => Some((command.clone(), outcome(number))),
        AuditEvent::Denied { command, times, .. } => Some((command.clone(), format!("denied, {times}"))),
        AuditEvent::Ended { .. } => None,
    };
    (1..).zip(&events).filter_map(of).collect()
}

/// The last of them, in words.
async fn last(admin: &Admin) -> String {
    let all = commands(admin).await;
    let (command, outcome) = all.last().unwrap();
    let AuditCommand { by, tenant, verb, object, .. } = command;
    format!("{}/{} in {tenant}: {verb} {object}: {outcome}", by.tenant, by.name)
}

#[test]
fn every_command_is_recorded_with_who_what_and_what_came_of_it() {
    simulate(&ONE, |world| async move {
        let root = world.client().await.admin();
        root.create_tenant("shop").await.unwrap();
        assert_eq!(last(&root).await, "default/root in default: tenant create shop: done, is there");
        let shop = world.patiently(|| world.builder().tenant("shop")).await.admin();
        let team = shop.create_token("team", Scope::TenantAdmin).await.unwrap();
        assert_eq!(last(&root).await, "default/root in shop: token create team: done, is there");
        let team = world.builder().token(team.text()).connect().await.unwrap().admin();
        let made = team.create_bucket("cart", props()).await.unwrap();
        assert_eq!(last(&root).await, "shop/team in shop: bucket create cart: done, is there");
        assert_eq!(team.create_bucket("cart", props()).await.unwrap_err().kind(), ErrorKind::Exists);
        assert_eq!(last(&root).await, "shop/team in shop: bucket create cart: refused, Exists");
        let other = BucketProps { siblings: 64, ..made.props.clone() };
        team.set_bucket("cart", made.version, other).await.unwrap();
        team.rotate_token("team", Duration::from_secs(60)).await.unwrap();
        assert!(team.push_plugin("none", b"no component".to_vec()).await.is_err());
        assert!(last(&root).await.ends_with(": refused, PluginRejected"), "{}", last(&root).await);
        root.pause_exchange(true).await.unwrap();
        assert_eq!(last(&root).await, "default/root in default: exchange pause : done, -");
        root.stage_layout(rejoin_client::admin::LayoutChanges::default()).await.unwrap();
        assert!(last(&root).await.contains("layout stage"), "{}", last(&root).await);

        // What the state was and became fits together: made, and then set.
        let all = entries(&root).await;
        let after = |object: &str, verb: &str| {
            let asked = all.iter().enumerate().rev().find_map(|(at, entry)| match &entry.event {
                AuditEvent::Asked(command) if command.object == object && command.verb == verb => {
                    Some((at as u64 + 1, command.before))
                }
                _ => None,
            });
            let (number, before) = asked.unwrap();
            let after = all.iter().find_map(|entry| match &entry.event {
                AuditEvent::Ended { asked, outcome: AuditOutcome::Done { after } } if *asked == number => Some(*after),
                _ => None,
            });
            (before, after.flatten())
        };
        let first = commands(&root).await.into_iter().find(|(command, _)| command.verb == "bucket create").unwrap();
        assert_eq!(first.0.before, None, "it was new");
        let (again, _) = after("cart", "bucket create");
        let (before, now) = after("cart", "bucket set");
        assert!(again.is_some() && before == again && now.is_some() && now != before, "{all:?}");
        let asks = commands(&root).await.len();
        for _ in 0..3 {
            root.status().await.unwrap();
            root.tokens().await.unwrap();
            root.audit(1).await.unwrap();
        }
        assert_eq!(commands(&root).await.len(), asks, "who only looks is not recorded");
    });
}

#[test]
fn a_denial_is_recorded_with_its_number_and_does_not_fill_the_log() {
    simulate(&ONE, |world| async move {
        let root = world.client().await.admin();
        let limits = Limits { buckets: vec![name("cart")], prefix: "eu/".into() };
        let token = root.create_token("app", Grant { limits, ..Grant::of(Scope::ReadWrite) }).await.unwrap();
        let app = world.builder().token(token.text()).connect().await.unwrap().admin();
        for _ in 0..20 {
            assert_eq!(app.tokens().await.unwrap_err().kind(), ErrorKind::Denied);
        }
        assert_eq!(last(&root).await, "default/app in default: token list : denied, 1");
        assert_eq!(app.audit(1).await.unwrap_err().kind(), ErrorKind::Denied);
        assert_eq!(last(&root).await, "default/app in default: audit list : denied, 1");
        let before = commands(&root).await.len();
        tokio::time::sleep(Duration::from_secs(61)).await;
        assert_eq!(app.tokens().await.unwrap_err().kind(), ErrorKind::Denied);
        assert_eq!(last(&root).await, "default/app in default: token list : denied, 20");
        assert_eq!(commands(&root).await.len(), before + 1);
    });
}

/// Every byte of the files of a log.
fn bytes(dir: &Path) -> Vec<u8> {
    let files = std::fs::read_dir(dir.join("audit")).unwrap().map(|file| file.unwrap().path());
    files.flat_map(|file| std::fs::read(file).unwrap()).collect()
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn no_secret_is_in_the_log() {
    simulate(&ONE, |world| async move {
        let root = world.client().await.admin();
        let made = root.create_token("app", Scope::ReadOnly).await.unwrap();
        let rotated = root.rotate_token("app", Duration::ZERO).await.unwrap();
        root.revoke_token("app").await.unwrap();
        let log = bytes(&world.data("n1"));
        assert!(contains(&log, b"token revoke") && contains(&log, b"app"));
        let root_secret = world.files.token();
        let mut secrets = vec![root_secret.split_once(':').unwrap().1.as_bytes().to_vec()];
        for token in [&made, &rotated] {
            secrets.push(token.text().split_once(':').unwrap().1.as_bytes().to_vec());
            secrets.push(token.secret_hash().to_vec());
        }
        for secret in secrets {
            assert!(!contains(&log, &secret) && !contains(&log, &secret[..12]));
        }
    });
}

#[test]
fn each_node_has_its_own_log_and_keeps_it_over_a_crash() {
    simulate(&Setup::default(), |world| async move {
        let mut logs = Vec::new();
        for node in ["n1", "n2", "n3"] {
            let admin = world.pinned(node).await.admin();
            admin.create_token(&format!("of-{node}"), Scope::ReadOnly).await.unwrap();
            let (head, all) = records(&admin).await;
            assert_eq!((head.last, all.len()), (2, 2), "only what {node} was asked");
            logs.push((node, head));
        }
        for (node, head) in logs {
            world.kill(node);
            world.start(node);
            let admin = world.pinned(node).await.admin();
            let (now, all) = records(&admin).await;
            assert_eq!(now, head);
            let AuditEvent::Asked(asked) = all[0].entry().unwrap().event else { panic!("{all:?}") };
            assert_eq!(asked.object, format!("of-{node}"));
            admin.revoke_token(&format!("of-{node}")).await.unwrap();
            assert_eq!(records(&admin).await.0.last, head.last + 2);
        }
    });
}

/// Sends a command, and ends the connection as soon as it is on its way.
async fn hit_and_run(world: &World, body: AdminRequest) {
    let endpoint = world.endpoint(0, Identity::client(world.files.ca_pem(), None).unwrap());
    let connection = endpoint.connect_client(world.address("n1")).await.unwrap();
    let hello = ClientHello { protocol: PROTOCOL, token: world.files.token(), tenant: None, client: "runs".into() };
    connection.sender().try_send(Class::Control, 0, codec::encode(&hello).into()).unwrap();
    connection.recv().await.unwrap();
    let (deadline_ms, layout) = (60_000, LayoutRef::default());
    let request = Request { deadline_ms, trace: 0, layout, body: RequestBody::Admin(body) };
    connection.sender().try_send(Class::Request, 1, codec::encode(&request).into()).unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    connection.close(rejoin_wire::CloseCode::SHUTDOWN, "enough");
}

#[test]
fn a_command_whose_client_leaves_has_no_answer_and_is_recorded_so() {
    // A change of quorums waits for every node, and one of two is not there.
    simulate(&Setup { nodes: &["n1", "n2"], ..ONE }, |world| async move {
        let root = world.pinned("n1").await.admin();
        let made = root.create_bucket("cart", BucketProps { n: 2, ..BucketProps::default() }).await.unwrap();
        world.kill("n2");
        let props = BucketProps { r: rejoin_client::admin::Quorum::Count(1), ..made.props };
        hit_and_run(&world, AdminRequest::BucketSet { name: name("cart"), version: made.version, props, force: false })
            .await;
        loop {
            // The simulation's end is the deadline.
            if last(&root).await == "default/root in default: bucket set cart: unanswered" {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
}

#[test]
fn a_log_at_its_limit_keeps_the_newest_records() {
    simulate(&Setup { more: "audit_bytes = 65536", ..ONE }, |world| async move {
        let root = world.client().await.admin();
        let mut last = String::new();
        for number in 0..400 {
            last = format!("token-{number}");
            root.create_token(&last, Scope::ReadOnly).await.unwrap();
        }
        let (head, all) = records(&root).await;
        assert!(head.first > 1 && head.last == 800, "{head:?}");
        assert_eq!(all.first().unwrap().number, head.first);
        assert!(bytes(&world.data("n1")).len() <= 65_536 + 4_096);
        let AuditEvent::Asked(command) = all[all.len() - 2].entry().unwrap().event else { panic!("{all:?}") };
        assert_eq!(command.object, last);
    });
}
