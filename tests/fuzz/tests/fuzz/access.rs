//! Texts of tokens, and requests by every scope: nothing gets more than the table says.

use rejoin_core::access::{Verb, Whose, authorise};
use rejoin_proto::access::{Grant, Limits, MAX_TOKEN_BYTES, Scope, TokenText};
use rejoin_proto::client::{Request, RequestBody};
use rejoin_proto::{Name, codec};
use rejoin_test_fuzz::corpus;

use crate::fuzz;

fn property(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        texts(text);
    }
    if let Ok(request) = codec::decode::<Request>(bytes) {
        requests(&request.body);
    }
}

/// One token has one text, but for the name of the default tenant.
fn texts(text: &str) {
    let Some(parsed) = TokenText::parse(text) else { return };
    assert!(text.len() <= MAX_TOKEN_BYTES);
    let again = parsed.to_text();
    let back = TokenText::parse(&again).expect("what is written can be read");
    assert!(back == parsed && (again == text || text == format!("default/{again}")), "{text:?} {again:?}");
    assert!(!parsed.name.as_str().contains(['/', ':']) && text.ends_with(parsed.secret));
}

fn requests(request: &RequestBody) {
    let may = |scope, whose| authorise(&Grant::of(scope), whose, request).is_ok();
    let Some(verb) = Verb::of(request) else {
        // What concerns the connection only.
        assert!(matches!(request, RequestBody::Layout | RequestBody::Settled(_)), "{request:?}");
        return;
    };
    assert!(may(Scope::Operator, Whose::Own) && may(Scope::Operator, Whose::Other));
    for scope in Scope::ALL.into_iter().filter(|scope| *scope != Scope::Operator) {
        assert!(!may(scope, Whose::Other), "{scope} in another tenant: {request:?}");
    }
    // Whoever may more may not less.
    assert!(!may(Scope::ReadOnly, Whose::Own) || may(Scope::ReadWrite, Whose::Own), "{verb:?}");
    for scope in [Scope::ReadWrite, Scope::PluginAuthor] {
        assert!(!may(scope, Whose::Own) || may(Scope::TenantAdmin, Whose::Own), "{verb:?}");
    }
    let (bucket, key, writes) = match request {
        RequestBody::Get(get) => (&get.bucket, &get.key, false),
        RequestBody::Put(put) => (&put.bucket, &put.key, true),
        _ => {
            let reads = matches!(verb, Verb::BucketShow | Verb::ConflictShow | Verb::ShadowShow | Verb::ShadowSamples);
            assert!(reads || !may(Scope::ReadWrite, Whose::Own), "{verb:?}");
            return;
        }
    };
    assert_eq!(may(Scope::ReadOnly, Whose::Own), !writes);
    assert!(!may(Scope::PluginAuthor, Whose::Own));
    // Who may read and write may not undo a fold.
    let scope = if verb == Verb::FoldUndo { Scope::TenantAdmin } else { Scope::ReadWrite };
    assert_eq!(may(Scope::ReadWrite, Whose::Own), verb != Verb::FoldUndo);
    let limited = |buckets: Vec<Name>, prefix: &[u8]| {
        let limits = Limits { buckets, prefix: prefix.to_vec().into() };
        authorise(&Grant { limits, ..Grant::of(scope) }, Whose::Own, request).is_ok()
    };
    let other = Name::new(if bucket.as_str() == "a" { "b" } else { "a" }).expect("a name");
    let half = &key[..key.len() / 2];
    assert!(limited(vec![bucket.clone()], half) && limited(Vec::new(), key) && !limited(vec![other], half));
    assert!(!limited(Vec::new(), &[key.as_ref(), b"x"].concat()), "the prefix is longer than the key");
}

#[test]
fn access() {
    let texts = ["app:s3cret", "shop/app:s3cret", "default/app:s", "root:x", "a/b/c:s", "a:b:c"];
    let mut seeds = corpus::fixtures(&["request-"]);
    seeds.extend(texts.into_iter().map(|text| text.as_bytes().to_vec()));
    fuzz("access", seeds, property);
}
