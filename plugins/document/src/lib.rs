//! A document that many edit at once: the state of Yjs, merged by yrs.
//!
//! # Format
//! Eight bytes of a checksum, then an update of Yjs (version 1) that holds all of the document. Clients do not write
//! values: they send updates as *operations* and ask for what they lack, as providers of Yjs do.
//!
//! An operation is an update of a client, refused if it needs edits that the document does not have. A question is the
//! state vector of a client, answered by the update that it lacks, an empty one by the whole document. Shown is what
//! each root type has: a text, a list, or an object.
//!
//! # Limits
//! A client's id must be its own: of two edits with one id and one clock only one is kept. Yjs does not notice a value
//! that was changed on its way, hence the checksum. Documents within documents trap: yrs draws random numbers for them.

#![cfg_attr(not(target_arch = "wasm32"), forbid(unsafe_code))]

use serde_json::{Value, json};
use yrs::types::ToJson;
use yrs::updates::decoder::Decode;
use yrs::{
    ArrayRef, ClientID, Doc, GetString, Map, MapRef, OffsetKind, Options, Out, ReadTxn, StateVector, Text, TextRef,
    Transact, Update,
};

use rejoin_guest::laws::Rng;
use rejoin_guest::{Describer, Dot, Fault, Merger, Metadata, Operator, Presenter, Sampler, Sibling, Validator};

/// The most edits of a sample.
const SAMPLED_EDITS: u64 = 24;

/// The merge plugin for documents.
pub struct Plugin;

rejoin_guest::export!(Plugin: Merger, Validator, Operator, Presenter, Sampler, Describer);

/// An empty document of a client, with a name of its own: yrs would draw a random one.
fn document(client: u64) -> Doc {
    let named = Options::with_guid_and_client_id("document".into(), ClientID::new(client));
    Doc::with_options(Options { offset_kind: OffsetKind::Utf16, ..named })
}

/// FNV-1a: it notices accidents, not intent.
fn checksum(update: &[u8]) -> [u8; 8] {
    let fold = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    update.iter().fold(0xcbf2_9ce4_8422_2325, fold).to_le_bytes()
}

fn all(doc: &Doc) -> Vec<u8> {
    doc.transact().encode_state_as_update_v1(&StateVector::default())
}

fn value(doc: &Doc) -> Vec<u8> {
    let update = all(doc);
    [&checksum(&update)[..], &update].concat()
}

/// Adds an update that needs nothing which the document does not have.
fn add(doc: &Doc, update: &[u8]) -> Result<(), Fault> {
    let update = Update::decode_v1(update).map_err(|_| Fault::Malformed)?;
    doc.transact_mut().apply_update(update).map_err(|_| Fault::Malformed)?;
    if doc.transact().has_missing_updates() { Err(Fault::Malformed) } else { Ok(()) }
}

fn join(doc: &Doc, value: &[u8]) -> Result<(), Fault> {
    let (sum, update) = value.split_first_chunk().ok_or(Fault::Malformed)?;
    if *sum == checksum(update) { add(doc, update) } else { Err(Fault::Malformed) }
}

fn read(state: &[u8]) -> Result<Doc, Fault> {
    let doc = document(0);
    join(&doc, state).map(|()| doc)
}

impl Merger for Plugin {
    fn merge(_key: &[u8], siblings: &[Sibling]) -> Result<Vec<u8>, Fault> {
        let doc = document(0);
        siblings.iter().try_for_each(|sibling| join(&doc, &sibling.value)).map(|()| value(&doc))
    }
}

impl Validator for Plugin {
    fn validate(_key: &[u8], value: &[u8]) -> Result<(), Fault> {
        read(value).map(drop)
    }
}

impl Operator for Plugin {
    fn apply(_key: &[u8], state: Option<&[u8]>, operation: &[u8], _dot: Dot) -> Result<Vec<u8>, Fault> {
        let doc = state.map_or_else(|| Ok(document(0)), read)?;
        add(&doc, operation).map(|()| value(&doc))
    }

    fn query(state: &[u8], question: &[u8]) -> Result<Vec<u8>, Fault> {
        let seen = if question.is_empty() { Ok(StateVector::default()) } else { StateVector::decode_v1(question) };
        Ok(read(state)?.transact().encode_diff_v1(&seen.map_err(|_| Fault::Malformed)?))
    }
}

/// What a root type has. Updates do not say of which type it is.
fn shown(root: Out, txn: &impl ReadTxn) -> Value {
    let Out::UndefinedRef(root) = root else { return Value::Null };
    let (map, text) = (MapRef::from(root), TextRef::from(root).get_string(txn));
    let json = match (map.len(txn), text.is_empty()) {
        (1.., _) => map.to_json(txn),
        (0, false) => text.into(),
        (0, true) => ArrayRef::from(root).to_json(txn),
    };
    serde_json::to_value(json).unwrap_or_default()
}

impl Presenter for Plugin {
    fn show(value: &[u8]) -> Vec<u8> {
        let Ok(doc) = read(value) else { return json!({ "error": "a value is malformed" }).to_string().into() };
        let txn = doc.transact();
        let roots = txn.root_refs().map(|(name, root)| (name, shown(root, &txn)));
        roots.collect::<Value>().to_string().into_bytes()
    }
}

impl Describer for Plugin {
    fn describe() -> Metadata {
        Metadata { name: "document", version: env!("CARGO_PKG_VERSION"), schema: 1, self_causal: true }
    }
}

impl Sampler for Plugin {
    /// Copies of one document at some point of one history for each size, so that samples share edits and clients.
    fn sample(seed: u64, size: u32) -> Vec<u8> {
        let mut which = Rng::new(seed);
        let mut rng = Rng::new(u64::from(size));
        let docs = [1, 2, 3].map(|client| document(u64::from(size) * 3 + client));
        let typed = "edit".repeat(1 + size as usize / 8);
        for _ in 0..which.below(SAMPLED_EDITS) {
            let [doc, other] = [0; 2].map(|_| &docs[rng.below(3) as usize]);
            let (kind, at, key) = (rng.below(6), rng.below(1 << 20) as u32, if rng.one_in(2) { "x" } else { "y" });
            let (text, map) = (doc.get_or_insert_text("text"), doc.get_or_insert_map("map"));
            let theirs = Update::decode_v1(&all(other)).unwrap_or_default();
            let mut txn = doc.transact_mut();
            let length = text.len(&txn);
            match kind {
                0 | 1 => text.insert(&mut txn, at % (length + 1), &typed),
                2 => text.remove_range(&mut txn, 0, length.min(3)),
                3 => drop(map.insert(&mut txn, key, f64::from(at))),
                4 => drop(map.remove(&mut txn, key)),
                _ => txn.apply_update(theirs).unwrap_or_default(),
            }
        }
        value(&docs[which.below(3) as usize])
    }
}
