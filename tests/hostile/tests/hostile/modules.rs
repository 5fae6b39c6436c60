//! Components that are refused before they run, each for its own reason and with a helpful message.

use rejoin_merge::{Host, HostConfig, MergeFault, ModuleLimits, Rejection, TrapKind};
use rejoin_test_hostile::{Bench, guests};

fn rejection(bytes: &[u8], limits: &ModuleLimits) -> Rejection {
    let bench = Bench::default();
    let rejection = bench.host.compile(bytes, limits).expect_err("this is no plugin");
    bench.assert_unharmed();
    rejection
}

fn refused(bytes: &[u8]) -> Rejection {
    rejection(bytes, &ModuleLimits::default())
}

#[test]
fn bytes_that_are_no_component() {
    for bytes in [&b""[..], b"\0asm", b"#!/bin/sh", &[0xff; 4096], b"\0asm\x0d\0\x01\0\xff\xff\xff\xff"] {
        assert!(matches!(refused(bytes), Rejection::NotAComponent { .. }), "{bytes:?}");
    }
    let good = guests::first();
    for cut in [good.len() - 1, good.len() / 2, 9] {
        assert!(matches!(
            refused(&good[..cut]),
            Rejection::NotAComponent { .. } | Rejection::NoMerger { .. } | Rejection::Uncompilable { .. }
        ));
    }
}

#[test]
fn every_flipped_byte_is_survived() {
    let bench = Bench::default();
    let good = guests::first();
    let mut refused = 0;
    for at in (0..good.len()).step_by(7) {
        let mut bad = good.clone();
        bad[at] ^= 0x55;
        // Whether it is still a component depends on the byte; that it is an answer and no panic does not.
        refused += u32::from(bench.host.compile(&bad, &ModuleLimits::default()).is_err());
    }
    assert!(refused > 0, "no flipped byte was noticed");
    bench.assert_unharmed();
}

#[test]
fn a_core_module() {
    assert_eq!(refused(&[0, b'a', b's', b'm', 1, 0, 0, 0]), Rejection::CoreModule);
}

#[test]
fn an_import_is_named() {
    let rejection = refused(&guests::importing());
    assert_eq!(rejection, Rejection::Imports { name: "clock".into() });
    assert!(rejection.to_string().contains("\"clock\""));
}

#[test]
fn nothing_that_merges() {
    let Rejection::NoMerger { exports } = refused(&guests::without_merger()) else { panic!("it has no merger") };
    assert_eq!(exports, "rejoin:plugin/presenter@0.1.0");
}

#[test]
fn another_version_or_type_of_the_contract() {
    for component in [guests::from_the_future(), guests::of_another_type()] {
        let rejection = refused(&component);
        assert!(
            matches!(&rejection, Rejection::WrongInterface { interface, .. } if interface.starts_with("rejoin:plugin/merger@")),
            "{rejection}"
        );
    }
}

#[test]
fn what_cannot_be_started() {
    let Rejection::CannotStart { fault } = refused(&guests::endless_start()) else { panic!("it never starts") };
    assert!(matches!(fault, MergeFault::OutOfFuel { .. }), "{fault}");
    let traps = guests::merging("(func $stop (unreachable)) (start $stop)", "(i32.const 1024)");
    assert_eq!(refused(&traps), Rejection::CannotStart { fault: MergeFault::Trapped(TrapKind::Unreachable) });
}

#[test]
fn too_many_bytes() {
    let good = guests::first();
    let limits = ModuleLimits { bytes: good.len() - 1, ..ModuleLimits::default() };
    assert_eq!(rejection(&good, &limits), Rejection::TooLarge { bytes: good.len(), limit: limits.bytes });
    let limits = ModuleLimits { bytes: good.len(), ..limits };
    assert!(
        Host::new(HostConfig::default()).expect("a host").compile(&good, &limits).is_ok(),
        "the limit itself is allowed"
    );
}

#[test]
fn too_much_of_anything_is_named() {
    let default = ModuleLimits::default();
    let functions = "(func)".repeat(40);
    let long_body = format!("{} (i32.const 1024)", "(drop (i32.const 1))".repeat(2_000));
    for (component, limits, part) in [
        (guests::merging(&functions, "(i32.const 1024)"), ModuleLimits { functions: 30, ..default }, "functions"),
        (guests::merging("", &long_body), ModuleLimits { function_bytes: 1_000, ..default }, "bytes in one function"),
        (guests::with_memory("65536", "(i32.const 1024)"), default, "bytes of initial memory"),
        (guests::merging("(table 4000000000 funcref)", "(i32.const 1024)"), default, "table elements"),
        (guests::first(), ModuleLimits { modules: 0, ..default }, "core modules"),
    ] {
        let rejection = rejection(&component, &limits);
        assert!(matches!(&rejection, Rejection::StructureLimit { what, .. } if *what == part), "{part}: {rejection}");
    }
}

#[test]
fn a_card_that_cannot_be_read() {
    let bench = Bench::default();
    let good = bench.plugin(&guests::describing("(call $card (i32.const 3000) (i32.const 4))"));
    assert_eq!(good.metadata().map(|metadata| metadata.name.as_str()), Some("good"));
    for body in [
        "(call $card (i32.const 3000) (i32.const 6))",
        "(call $card (i32.const 3000) (i32.const 0))",
        "(call $card (i32.const 65000) (i32.const 65000))",
        "(call $card (i32.const 4096) (i32.const 60000))",
        "(loop $again (br $again)) (unreachable)",
        "(unreachable)",
        "(i32.const -4)",
    ] {
        let rejection = refused(&guests::describing(body));
        assert!(matches!(rejection, Rejection::BadMetadata { .. }), "{body}: {rejection}");
    }
}
