//! The texts of the trace.

use rejoin_core::shard::event::Event;
use rejoin_proto::client::{Basis as Given, Reply};
use rejoin_proto::peer::{Absorbed, DataRequest, Holder, PeerBody, PeerEnvelope};
use rejoin_proto::{Content, Dot, DotSet, Entry, Object, VersionVector};

use crate::history::{Asked, Basis, Call, CallId, KeyId, NodeIndex, Outcome};
use crate::keys::Keys;
use crate::trace::Trace;

/// A request or message that a shard takes up.
pub(crate) fn event(trace: &mut Trace, now_us: u64, at: NodeIndex, keys: &Keys, calls: &[Call], event: &Event) {
    match event {
        Event::Client(client) => {
            let key = calls.get(client.reply_to.request as usize).map(|call| call.key);
            trace.line(now_us, Some(at), key, || {
                format!("takes c{}: {}", client.reply_to.request, request(&client.request))
            });
        }
        Event::Peer(from, envelope) => {
            let from = keys.index(*from);
            trace.line(now_us, Some(at), key_of_message(envelope, keys, calls), || {
                format!("hears n{from}: {}", message(envelope))
            });
        }
        _ => {}
    }
}

/// A message that a shard lets go.
pub(crate) fn sent(
    trace: &mut Trace,
    now_us: u64,
    (from, to): (NodeIndex, NodeIndex),
    keys: &Keys,
    calls: &[Call],
    envelope: &PeerEnvelope,
) {
    trace.line(now_us, Some(from), key_of_message(envelope, keys, calls), || {
        format!("tells n{to}: {}", message(envelope))
    });
}

/// A client's request.
pub(crate) fn asked(session: u32, call: CallId, asked: &Asked) -> String {
    match asked {
        Asked::Get { r } => format!("s{session} asks c{call}: get, r = {}, pr = {}", r.nodes, r.owners),
        Asked::Put { w, basis, value, adds, retry_of, .. } => {
            let what = match (value, adds) {
                (None, _) => "delete".to_owned(),
                (Some(_), Some(element)) => format!("put of {:x}.{}", element.0 >> 32, element.0 & 0xffff_ffff),
                (Some(_), None) => "put without an element".to_owned(),
            };
            let basis = match basis {
                Basis::Blind => "blind".to_owned(),
                Basis::After(call) => format!("after c{call}"),
                Basis::Create => "create".to_owned(),
            };
            let again = retry_of.map_or_else(String::new, |first| format!(", again for c{first}"));
            format!("s{session} asks c{call}: {what}, {basis}, w = {}, pw = {}{again}", w.nodes, w.owners)
        }
        Asked::Undo { seen, inputs, malformed, .. } => {
            let forged = if *malformed { ", the last one forged" } else { "" };
            format!("s{session} asks c{call}: undo of {} to {} values{forged}", vector(seen), inputs.len())
        }
    }
}

/// A coordinator's reply.
pub(crate) fn reply(reply: &Reply) -> String {
    match reply {
        Reply::Get(get) => {
            let value = get.value.as_ref().map_or_else(|| "no value".to_owned(), |value| bytes(value));
            let fault = get.merge_fault.as_ref().map_or_else(String::new, |fault| format!(", not merged: {fault}"));
            format!("{value}, {} siblings, of {} owners{fault}", get.siblings.len(), get.answered.len())
        }
        Reply::Put(put) => format!("{:?}, {} of {}", put.outcome, put.acked, put.needed),
        Reply::Error(error) => format!("{:?}: {error}", error.code),
        other => format!("{other:?}"),
    }
}

/// How a call has ended for its client.
pub(crate) fn ended(call: CallId, outcome: &Outcome) -> String {
    match outcome {
        Outcome::Ok(answer) => format!("c{call} is done, seen {}", vector(&answer.context)),
        Outcome::Refused => format!("c{call} is refused"),
        Outcome::Unknown(_) => format!("c{call} is of unknown fate"),
    }
}

/// An outcome as a number, for the digest.
pub(crate) fn outcome_number(outcome: &Outcome) -> u64 {
    match outcome {
        Outcome::Ok(_) => 1,
        Outcome::Refused => 2,
        Outcome::Unknown(_) => 3,
    }
}

/// The key of a message; a forwarded request and an answer have the key of their call.
fn key_of_message(envelope: &PeerEnvelope, keys: &Keys, calls: &[Call]) -> Option<KeyId> {
    match &envelope.body {
        PeerBody::Read { object, .. } => Some(keys.of_name(object.bucket, &object.key)),
        PeerBody::Replicate(message) => Some(keys.of_name(message.object.bucket, &message.object.key)),
        _ => envelope.trace.checked_sub(1).and_then(|call| calls.get(call as usize)).map(|call| call.key),
    }
}

fn request(request: &DataRequest) -> String {
    match request {
        DataRequest::Get(_) => "get".to_owned(),
        DataRequest::Put(put) => {
            let basis = match &put.basis {
                Given::Context(_) => "with a context",
                Given::Create => "create",
                Given::Blind => "blind",
                Given::Operation => "operation",
                Given::Undo(_) => "undo",
            };
            let what = if put.content == Content::Tombstone { "delete" } else { "put" };
            format!("{what} {basis}, attempt {}", put.attempt)
        }
    }
}

fn message(envelope: &PeerEnvelope) -> String {
    let trace = envelope.trace.checked_sub(1).map_or_else(String::new, |call| format!(" (c{call})"));
    let text = match &envelope.body {
        PeerBody::Forward(forward) => format!("forward {}", request(&forward.request)),
        PeerBody::ForwardReply { reply: to, .. } => format!("forward reply {}", reply(to)),
        PeerBody::Read { as_fallback: false, .. } => "read".to_owned(),
        PeerBody::Read { as_fallback: true, .. } => "read what it holds".to_owned(),
        PeerBody::ReadReply { copy: Ok(copy), .. } => format!("copy {}", object(copy)),
        PeerBody::ReadReply { copy: Err(code), .. } => format!("no copy: {code:?}"),
        PeerBody::ReadSame { .. } => "the same copy".to_owned(),
        PeerBody::Replicate(message) => {
            let dot = message.dot.map_or_else(|| "repair".to_owned(), dot);
            format!("replicate {dot} {}", object(&message.state))
        }
        PeerBody::Replicated { outcome: Ok(Absorbed::Stored), .. } => "stored".to_owned(),
        PeerBody::Replicated { outcome: Ok(Absorbed::Superseded(seen)), .. } => {
            format!("superseded by {}", vector(seen))
        }
        PeerBody::Replicated { outcome: Err(code), .. } => format!("refused: {code:?}"),
        PeerBody::Observed { actor, counter } => {
            format!(
                "OBJECTS: actor {:04x} of p{} has used {counter}, not only below {}",
                actor.actor.0 >> 48,
                actor.partition,
                actor.next
            )
        }
        PeerBody::Holdings { partition, holders, .. } => {
            let holder = |holder: &Holder| format!("{} {} ({})", holder.node, holder.holds, holder.version);
            format!("holdings of p{partition}: {}", holders.iter().map(holder).collect::<Vec<_>>().join(", "))
        }
        PeerBody::Offer(offer) => format!("offer of {} objects of p{}", offer.objects.len(), offer.partition),
        PeerBody::OfferReply { answers, .. } => format!("offer reply {answers:?}"),
        other => other.kind().to_owned(),
    };
    format!("{text}{trace}")
}

/// An object in short: its context, then its entries. Actors are told apart by their first four digits.
pub(crate) fn object(object: &Object) -> String {
    let entries: Vec<String> = object.entries.iter().map(entry).collect();
    format!("{} {}", vector(&object.context), entries.join(" "))
}

fn entry(entry: &Entry) -> String {
    let content = match &entry.content {
        Content::Tombstone => "deleted".to_owned(),
        Content::Value(value) => bytes(value),
    };
    let folded = if entry.folded_by.is_some() { " folded" } else { "" };
    format!("<{} {content}{folded}>", runs(&entry.dots))
}

fn bytes(value: &[u8]) -> String {
    match value.first() {
        Some(b'{') => String::from_utf8_lossy(value).into_owned(),
        _ => {
            let words = value.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word));
            let all: Vec<String> = words.map(|word| format!("{:x}.{}", word >> 32, word & 0xffff_ffff)).collect();
            format!("{{{}}}", all.join(" "))
        }
    }
}

fn runs(runs: &DotSet) -> String {
    spans(runs.spans())
}

fn spans(spans: &[rejoin_proto::DotSpan]) -> String {
    let span = |run: &rejoin_proto::DotSpan| format!("{:04x}({},{}]", run.actor.0 >> 48, run.lo, run.hi);
    spans.iter().map(span).collect::<Vec<_>>().join("+")
}

fn vector(vector: &VersionVector) -> String {
    let cloud = if vector.cloud().is_empty() { String::new() } else { format!(" + {}", spans(vector.cloud())) };
    format!("[{}{cloud}]", vector.iter().map(dot).collect::<Vec<_>>().join(" "))
}

fn dot(dot: Dot) -> String {
    format!("{:04x}:{}", dot.actor.0 >> 48, dot.counter)
}
