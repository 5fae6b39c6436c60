use clap::CommandFactory;
use clap::error::ErrorKind;

use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("rejoin").chain(line.split_whitespace()))
}

fn command(line: &str) -> Command {
    parse(line).unwrap_or_else(|why| panic!("{line}: {why}")).command
}

#[test]
fn the_definition_holds_together() {
    Cli::command().debug_assert();
}

#[test]
fn every_verb_is_spelled_as_documented() {
    let digest = "ab".repeat(32);
    let lines = [
        "dev".into(),
        "dev --nodes 5 --base-port 9400 --data d".into(),
        "demo partition".into(),
        "serve --config node.toml".into(),
        "serve --config node.toml --threads 4 --pin".into(),
        "status --json".into(),
        "cert ca --renew --new-key".into(),
        "cert ca --retire --dir d".into(),
        "cert secret add".into(),
        "cert secret use --dir d".into(),
        "cert secret retire --json".into(),
        "encryption add keys".into(),
        "encryption list keys --json".into(),
        "encryption remove keys 3f2a91c0".into(),
        "audit list".into(),
        "audit list --by shop/team --verb token --object app --since 7d --refused --tenant shop --json".into(),
        "audit verify".into(),
        format!("audit verify --head n1:12:{digest} --head n2:0:{digest}"),
        "status --profile p.toml --wait-healthy".into(),
        "get b k --r 1 --siblings --node 127.0.0.1:7401 --json".into(),
        "put b k v --w 1 --context abc".into(),
        "put b k @file --blind".into(),
        "put b k - --ttl 7d".into(),
        "delete b k --blind --w 3".into(),
        "plugin activate b cart@1".into(),
        "plugin rollback b --to 0a1b2c".into(),
        "plugin activate b cart --partitions 10".into(),
        "plugin activate b --partitions 0".into(),
        "plugin shadow b cart@2 --share 5".into(),
        "plugin shadow b --counts --json".into(),
        "plugin diff b cart@1 cart@2 --limit 9".into(),
        "plugin fetch cart@2 -o cart.wasm".into(),
        "plugin undo b k --plugin cart@2 --since 2h --dry-run".into(),
        "plugin undo b --key-base64 /w== --plugin cart@2".into(),
        "conflict list b --json".into(),
        "conflict show b k".into(),
        "conflict resolve b k --keep 2 --context abc".into(),
        "conflict resolve b --key-base64 aw== --value @file".into(),
        format!(
            "bucket create b --plugin {digest} --n 3 --r 1 --w quorum --pr 0 --pw 2 --durability os --ttl 30s --strict"
        ),
        "bucket list".into(),
        "bucket show b".into(),
        "bucket delete b --dry-run".into(),
        "bucket delete b --yes --after 0s".into(),
        "bucket restore b".into(),
        "bucket set b --r 2 --plugin none --ttl none --version 4".into(),
        "cert ca --dir d".into(),
        "cert node n1 --dir d --host 10.0.0.1".into(),
        "cert client c".into(),
        "cert client c --scope read-write --tenant shop".into(),
        "token create t".into(),
        "token create t --scope tenant-admin --expires 30d".into(),
        "token create t --scope read-only --bucket b --bucket c --prefix eu/ --tenant shop".into(),
        "token list".into(),
        "token rotate t --overlap 0s".into(),
        "token revoke t".into(),
        "tenant create shop".into(),
        "tenant list --json".into(),
        "tenant show shop".into(),
        "tenant delete shop --after 7d --yes".into(),
        "tenant restore shop".into(),
        "tenant quota shop".into(),
        "tenant quota shop --objects 9 --bytes-per-second 9 --connections 9 --plugins 3 --plugin-bytes 9".into(),
        "tenant quota shop --fuel-per-second 9 --in-flight 9 --siblings 4".into(),
        "tenant quota shop --bytes 9 --soft".into(),
        "tenant usage".into(),
        "tenant usage shop --json".into(),
        "bucket quota b --requests-per-second 9 --bytes 9".into(),
        "bucket quota b --none".into(),
        "token root --secret cluster-secret".into(),
        "bucket create b --merge set".into(),
        "bucket set b --merge last-writer --n 2".into(),
        "get b k --show".into(),
        "apply b k -3 --w 2".into(),
        "apply b --key-base64 /w== --operation 1".into(),
        "query b k".into(),
        "query b k \"total\" --r 2".into(),
        "plugin build plugins/cart -o cart.wasm".into(),
        "plugin new high-scores --sdk guest-sdk".into(),
        "plugin test cart.wasm".into(),
        "plugin test cart.wasm --cases 9 --seed 7 --counterexample c.json --json".into(),
        "plugin test cart.wasm --replay c.json".into(),
        "plugin run cart.wasm --key ann a b".into(),
        "plugin run cart.wasm --key ann @a.json @b.json --bucket carts --fuel 9 --memory-bytes 65536 --json".into(),
        "plugin run cart.wasm --replay c.json".into(),
        "plugin bench cart.wasm --siblings 2,8 --bytes 100 --seconds 1 --json".into(),
        "plugin bench cart.wasm a @b.json --siblings 256".into(),
        "plugin push cart.wasm --name cart".into(),
        "plugin push cart.wasm --unchecked".into(),
        "plugin push cart.wasm --intent intent.json --siblings-of carts".into(),
        "plugin push cart.wasm --fixture values --fixture one.json".into(),
        "plugin push cart.wasm --signature cart.sig".into(),
        "plugin keygen".into(),
        "plugin keygen team.pem --json".into(),
        "plugin sign cart.wasm --key team.pem --tenant shop -o cart.sig".into(),
        "tenant signers shop add team.pem.pub".into(),
        "tenant signers shop remove team.pem.pub".into(),
        "tenant signers shop list --json".into(),
        "conflict violations carts -o found.json".into(),
        "plugin push cart.wasm --counterexample c.json --json".into(),
        "plugin list --color never".into(),
        "plugin show cart@0.1.0 --json".into(),
        "plugin activate carts cart@0.1.0 --force".into(),
        "plugin rollback carts --to cart@0.1.0 --force".into(),
        format!("plugin delete {digest} --yes --after 7d"),
        format!("plugin delete {digest} --dry-run"),
        format!("plugin restore {digest}"),
        "completions bash".into(),
    ];
    for line in lines {
        command(&line);
    }
}

#[test]
fn what_contradicts_itself_is_refused() {
    for line in [
        "put b k v --context c --blind",
        "bucket set b --strict --sloppy",
        "bucket create b --merge bag",
        "bucket create b --merge set --plugin none",
        "apply b k",
        "get b k --show --siblings",
        "dev --nodes 0",
        "token create t --scope admin",
        "bucket delete b --dry-run --yes",
        "bucket quota b --none --bytes 9",
        "bucket quota b --requests-per-second 0",
        "bucket quota b --connections 9",
        "bucket quota b --siblings 9 --soft",
        "tenant quota t --none --plugins 9",
        "token rotate t --overlap 0",
        "dev --base-port 65500",
        "cert",
        "plugin test a.wasm --replay c --seed 2",
        "plugin test a.wasm --cases 0",
        "plugin push a.wasm --unchecked --counterexample c.json",
        "plugin push a.wasm --unchecked --intent i.json",
        "plugin push a.wasm --unchecked --siblings-of carts",
        "plugin push a.wasm --unchecked --fixture values",
        "plugin run a.wasm --key k",
        "plugin run a.wasm a b",
        "plugin run a.wasm a b --replay c.json",
        "plugin bench a.wasm --siblings 1",
        "plugin bench a.wasm a b --bytes 100",
        "plugin bench a.wasm --seconds 0",
        "plugin undo b k --key-base64 /w== --plugin cart",
    ] {
        assert!(parse(line).is_err(), "{line}");
    }
    assert_eq!(parse("put b k v --frobnicate").unwrap_err().kind(), ErrorKind::UnknownArgument);
}

#[test]
fn values_and_contexts_may_begin_with_a_dash() {
    let Command::Put(put) = command("put b k -5 --context -Abc") else { panic!("no put") };
    assert_eq!((put.value.as_deref(), put.write.context.as_deref()), (Some("-5"), Some("-Abc")));
}

#[test]
fn the_help_names_the_defaults_that_a_bucket_has() {
    let props = rejoin_client::admin::BucketProps::default();
    let mut command = Cli::command();
    let create = command
        .find_subcommand_mut("bucket")
        .and_then(|bucket| bucket.find_subcommand_mut("create"))
        .expect("bucket create");
    let help = create.render_long_help().to_string();
    for number in
        [u64::from(props.n), props.value_bytes.into(), props.siblings.into(), props.fuel, props.memory_bytes.into()]
    {
        assert!(help.contains(&format!("[default: {number}]")), "{number}: {help}");
    }
}

#[test]
fn threads_that_no_machine_has_are_refused() {
    for count in ["0", "1025", "1000000", "-1", "many"] {
        let refused = parse(&format!("serve --config node.toml --threads={count}")).expect_err(count);
        assert!(matches!(refused.kind(), ErrorKind::ValueValidation), "{refused}");
    }
}
