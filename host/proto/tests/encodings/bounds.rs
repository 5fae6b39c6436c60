//! The checks of names, digests, layouts and properties.

use proptest::prelude::*;

use rejoin_proto::catalog::{BucketProps, Quorum};
use rejoin_proto::hash::partition_of;
use rejoin_proto::layout::{BadLayout, MAX_NODES};
use rejoin_proto::{Hlc, Layout, LayoutNode, Name, NodeId, PartitionId, PluginDigest};

use crate::support::{self, digest, layout};

#[test]
fn fuel_grows_with_the_inputs_between_two_bounds() {
    use rejoin_proto::catalog::{FUEL_BYTES, LEAST_FUEL, MOST_FUEL_BYTES, fuel_for};
    let at = |bytes: u64| fuel_for(5_000_000_000, usize::try_from(bytes).unwrap());
    assert_eq!((at(0), at(100_000), at(FUEL_BYTES / 2)), (LEAST_FUEL, LEAST_FUEL, 2_500_000_000));
    assert_eq!((at(FUEL_BYTES), at(MOST_FUEL_BYTES), at(u64::MAX)), (5_000_000_000, 10_000_000_000, 10_000_000_000));
    let small = [0, 1_000, 1 << 20].map(|bytes| fuel_for(3_000_000, bytes));
    assert_eq!(small, [3_000_000; 3], "a bucket that names little gives that to every call");
    assert_eq!(fuel_for(u64::MAX, usize::MAX), u64::MAX);
}

#[test]
fn names_are_what_shells_files_and_certificates_take() {
    for good in ["a", "cart", "9lives", "n1.zone-2_b", &"x".repeat(64)] {
        assert_eq!(Name::new(good).map(|name| name.to_string()).as_deref(), Ok(good));
    }
    for bad in ["", ".hidden", "-flag", "_x", "a b", "a/b", "a\0", "ä", "a\n", "$(x)", &"x".repeat(65)] {
        assert!(Name::new(bad).is_err(), "{bad:?}");
        assert!(bad.parse::<Name>().is_err(), "{bad:?}");
    }
}

#[test]
fn a_bad_name_is_refused_inside_a_message_too() {
    use rejoin_proto::catalog::{Record, RecordBody, RecordKey};
    use rejoin_proto::codec;
    let record = Record {
        key: RecordKey::Token(support::tenant(), support::name("ops")),
        version: 1,
        stamp: Hlc(0),
        body: RecordBody::Tenant { name: support::name("ops") },
    };
    let bytes = codec::encode(&record);
    let at = bytes.windows(3).position(|word| word == b"ops").unwrap();
    for bad in [b'.', b' ', b'/', 0, 0xff] {
        let mut altered = bytes.clone();
        altered[at] = bad;
        assert!(codec::decode::<Record>(&altered).is_err(), "{bad}");
    }
}

#[test]
fn a_restoration_has_as_many_inputs_as_an_object_has_siblings_and_one_more() {
    use rejoin_proto::receipt::{MAX_RESTORED, Restoration, Restored};
    use rejoin_proto::{Content, DotSet, FoldedBy, ProfileId, codec};
    let by = FoldedBy { plugin: digest(), profile: ProfileId(1) };
    let of = |count: usize| {
        let inputs = vec![Restored { content: Content::Tombstone, expires: None, dots: DotSet::default() }; count];
        codec::encode(&Restoration { by, inputs })
    };
    let most = codec::decode::<Restoration>(&of(MAX_RESTORED)).map(|restoration| restoration.inputs.len());
    assert_eq!((most, MAX_RESTORED), (Ok(257), 257));
    assert!(codec::decode::<Restoration>(&of(MAX_RESTORED + 1)).is_err());
}

#[test]
fn a_push_has_at_most_so_many_fixtures() {
    use rejoin_proto::client::{AdminRequest, MAX_FIXTURES, PushChecks, Request, RequestBody};
    use rejoin_proto::codec;
    let decodes = |count: usize| {
        let checks = Box::new(PushChecks { fixtures: vec![Default::default(); count], ..PushChecks::default() });
        let push = AdminRequest::PluginPushWith {
            name: support::name("cart"),
            module: Default::default(),
            signature: None,
            checks,
        };
        let body = RequestBody::Admin(push);
        let request = Request { deadline_ms: 1, trace: 1, layout: layout().name(), body };
        codec::decode::<Request>(&codec::encode(&request)).is_ok()
    };
    assert!(decodes(MAX_FIXTURES) && !decodes(MAX_FIXTURES + 1));
}

#[test]
fn a_digest_is_64_hexadecimal_digits_and_nothing_else() {
    let text = digest().to_string();
    assert_eq!(text.parse(), Ok(digest()));
    assert_eq!(text.to_uppercase().parse(), Ok(digest()));
    let plus = format!("+f{}", &text[2..]);
    let signed = format!("{}+1", &text[..62]);
    let wide = format!("ä{}", &text[2..]);
    for bad in [
        "",
        &text[..63],
        &format!("{text}0"),
        &text.replace('0', "g"),
        &plus,
        &signed,
        &wide,
        &format!(" {}", &text[1..]),
    ] {
        assert!(bad.parse::<PluginDigest>().is_err(), "{bad}");
    }
}

fn broken(breaks: impl FnOnce(&mut Layout)) -> Result<(), BadLayout> {
    let mut layout = layout();
    breaks(&mut layout);
    layout.check()
}

fn nodes(count: usize) -> Vec<LayoutNode> {
    let node = |at| {
        let name = support::name(&format!("n{at}"));
        LayoutNode { id: NodeId::from_name(&name), name, ..layout().nodes[0].clone() }
    };
    let mut nodes: Vec<LayoutNode> = (0..count).map(node).collect();
    nodes.sort_by_key(|node| node.id);
    nodes
}

#[test]
fn a_layout_is_checked_for_all_that_look_ups_rely_on() {
    assert_eq!(broken(|_| {}), Ok(()));
    assert_eq!(broken(|layout| layout.nodes.clear()), Err(BadLayout::Nodes));
    assert_eq!(broken(|layout| layout.nodes = nodes(MAX_NODES)), Ok(()));
    assert_eq!(broken(|layout| layout.nodes = nodes(MAX_NODES + 1)), Err(BadLayout::Nodes));
    assert_eq!(broken(|layout| layout.nodes.swap(0, 1)), Err(BadLayout::Order));
    assert_eq!(broken(|layout| layout.nodes[1] = layout.nodes[0].clone()), Err(BadLayout::Order));
    assert_eq!(broken(|layout| layout.nodes[0].id = NodeId(0)), Err(BadLayout::Order), "not its own name's id");
    assert_eq!(broken(|layout| layout.owners.truncate(3)), Err(BadLayout::Partitions));
    assert_eq!(broken(|layout| layout.owners.clear()), Err(BadLayout::Partitions));
    assert_eq!(broken(|layout| layout.owners.resize(1 << 17, vec![0])), Err(BadLayout::Partitions));
    assert_eq!(broken(|layout| layout.owners[0].clear()), Err(BadLayout::Owners));
    assert_eq!(broken(|layout| layout.owners[0] = vec![0, 1, 0]), Err(BadLayout::Owners));
    assert_eq!(broken(|layout| layout.owners[0] = vec![3]), Err(BadLayout::Owners));
    assert_eq!(broken(|layout| layout.owners[0] = vec![0, 1, 2, 0, 1, 2]), Err(BadLayout::Owners));
    assert_eq!(broken(|layout| layout.copies.insert(0, layout.copies[0])), Err(BadLayout::Copies), "one bucket twice");
    assert_eq!(broken(|layout| layout.copies[0].n = 0), Err(BadLayout::Copies));
    assert_eq!(broken(|layout| layout.copies[0].n = 6), Err(BadLayout::Copies));
    assert_eq!(broken(|layout| layout.copies[0].change = 0), Err(BadLayout::Copies));
}

#[test]
fn a_record_may_have_quorums_of_more_copies_than_its_bucket_was_made_with() {
    let props = BucketProps { n: 1, w: Quorum::Count(5), zones: 5, ..BucketProps::default() };
    assert!(props.check().is_err() && props.check_record().is_ok());
    let too_many = BucketProps { w: Quorum::Count(6), ..props };
    assert!(too_many.check_record().is_err());
}

#[test]
fn a_layouts_name_changes_with_its_content() {
    let mut other = layout();
    other.owners[0].reverse();
    assert_ne!(layout().name(), other.name());
    assert_eq!(layout().name(), layout().name());
}

#[test]
fn properties_out_of_bounds_are_named() {
    let bad = |change: fn(&mut BucketProps)| {
        let mut props = BucketProps::default();
        change(&mut props);
        props.check().err().map(|bad| bad.property)
    };
    assert_eq!(bad(|_| {}), None);
    assert_eq!(bad(|props| props.n = 0), Some("n"));
    assert_eq!(bad(|props| props.n = 6), Some("n"));
    assert_eq!(bad(|props| props.r = Quorum::Count(0)), Some("r"));
    assert_eq!(bad(|props| props.w = Quorum::Count(4)), Some("w"));
    assert_eq!(bad(|props| props.pr = Quorum::Count(0)), None);
    assert_eq!(bad(|props| props.pw = Quorum::Count(4)), Some("pw"));
    assert_eq!(bad(|props| props.value_bytes = 16 * 1024 * 1024 + 1), Some("value_bytes"));
    assert_eq!(bad(|props| props.value_bytes = 16 * 1024 * 1024), None);
    assert_eq!(bad(|props| props.value_bytes = 0), Some("value_bytes"));
    assert_eq!(bad(|props| props.siblings = 1), Some("siblings"));
    assert_eq!(bad(|props| props.siblings = 256), None);
    assert_eq!(bad(|props| props.siblings = 257), Some("siblings"));
    assert_eq!(bad(|props| props.fuel = 0), Some("fuel"));
    assert_eq!(bad(|props| props.fuel = 10_000_000_000), None);
    assert_eq!(bad(|props| props.fuel = 10_000_000_001), Some("fuel"));
    assert_eq!(bad(|props| props.memory_bytes = 65_535), Some("memory_bytes"));
    assert_eq!(bad(|props| props.ttl_ms = Some(0)), Some("ttl"));
    assert_eq!(bad(|props| props.fold_undo_ms = 90 * 24 * 60 * 60 * 1000), None);
    assert_eq!(bad(|props| props.fold_undo_ms = 90 * 24 * 60 * 60 * 1000 + 1), Some("fold-undo"));
}

proptest! {
    /// Doubling the partitions splits each in two and moves nothing else.
    #[test]
    fn a_split_keeps_a_key_in_its_half(hash: u128, bits in 0..16u32) {
        let (whole, half) = (partition_of(hash, 1 << bits), partition_of(hash, 2 << bits));
        prop_assert_eq!(whole, PartitionId(half.0 / 2));
    }

    /// A clock's stamps grow whatever the wall does, and are never behind it.
    #[test]
    fn stamps_only_grow(last: u64, now in 0..u64::MAX >> 16) {
        let next = Hlc(last).next(now);
        prop_assert!(next > Hlc(last) || last == u64::MAX);
        prop_assert!(next >= Hlc::from_ms(now));
    }

    #[test]
    fn a_quorum_of_n_is_within_n(n in 1..=5u8, count: u8) {
        prop_assert!(Quorum::Majority.of(n) * 2 > n && Quorum::Majority.of(n) <= n);
        prop_assert!(Quorum::Count(count).of(n) <= n);
    }
}
