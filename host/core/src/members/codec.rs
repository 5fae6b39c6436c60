//! The datagrams between members, and the codec that `foca` writes them with.
//!
//! A datagram is a tag and what follows from it, all numbers little-endian and of fixed size:
//!
//! - *check* and its *answer*: the start of the sender's process, the number of the check (17 bytes).
//! - *SWIM*: a packet of `foca`. A header (kind, sender, its incarnation, receiver, and for indirect probes a third
//!   node; the number of the probe), then a count (big-endian, written by `foca`) and so many members.
//!
//! What comes in is looked at before `foca` sees it: it must come from the node that it names as its sender, name only
//! nodes of the layout, and be as long as it says.

use alloc::vec::Vec;

use bytes::{Buf, BufMut, Bytes};
use foca::{Header, Member, Message, ProbeNumber, State};

use rejoin_proto::NodeId;

/// The most bytes of a datagram: what the smallest path of QUIC has room for.
pub const MAX_DATAGRAM: usize = 1_100;

const SWIM: u8 = 1;
const CHECK: u8 = 2;
const ANSWER: u8 = 3;

const IDENTITY_BYTES: usize = 16;
const MEMBER_BYTES: usize = IDENTITY_BYTES + 3;

/// A process of a node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Identity {
    pub(super) node: NodeId,
    /// A later process of the same node has a larger one.
    pub(super) start: u64,
}

impl foca::Identity for Identity {
    type Addr = NodeId;

    fn addr(&self) -> NodeId {
        self.node
    }

    /// A process that the others have given up goes on under the next number.
    fn renew(&self) -> Option<Self> {
        Some(Self { start: self.start.checked_add(1)?, ..*self })
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.start > adversary.start
    }
}

/// What a node sends.
#[derive(Debug)]
pub(super) enum Datagram {
    Check { start: u64, number: u64 },
    Answer { start: u64, number: u64 },
    Swim(Packet),
}

/// A packet of `foca` that was looked at.
#[derive(Debug)]
pub(super) struct Packet {
    pub(super) body: Bytes,
    pub(super) sender: Identity,
    /// Whether it answers a question of this node.
    pub(super) is_answer: bool,
    /// The probe of this node that it answers, directly or through another node.
    pub(super) answers: Option<ProbeNumber>,
    /// Under which start the sender knows this node.
    pub(super) receiver: Identity,
    /// Whom it tells of.
    pub(super) members: Vec<Identity>,
}

impl Datagram {
    pub(super) fn encode(&self) -> Bytes {
        let (tag, start, number) = match self {
            Self::Check { start, number } => (CHECK, *start, *number),
            Self::Answer { start, number } => (ANSWER, *start, *number),
            Self::Swim(packet) => return swim(&packet.body),
        };
        let mut bytes = Vec::with_capacity(17);
        bytes.put_u8(tag);
        bytes.put_u64_le(start);
        bytes.put_u64_le(number);
        bytes.into()
    }

    /// Reads what `from` has sent to `to`. `None` if it is no datagram of this protocol, or names a node that is not
    /// known.
    pub(super) fn decode(bytes: &Bytes, from: NodeId, to: NodeId, known: impl Fn(NodeId) -> bool) -> Option<Self> {
        let (&tag, mut rest) = bytes.split_first().filter(|_| bytes.len() <= MAX_DATAGRAM)?;
        if tag == SWIM {
            return Packet::decode(bytes.slice(1..), from, to, known).map(Self::Swim);
        }
        if rest.len() != 16 {
            return None;
        }
        let (start, number) = (rest.get_u64_le(), rest.get_u64_le());
        match tag {
            CHECK => Some(Self::Check { start, number }),
            ANSWER => Some(Self::Answer { start, number }),
            _ => None,
        }
    }
}

impl Packet {
    fn decode(body: Bytes, from: NodeId, to: NodeId, known: impl Fn(NodeId) -> bool) -> Option<Self> {
        use foca::Codec as _;
        let mut rest = &body[..];
        let header = Codec.decode_header(&mut rest).ok()?;
        let third = match header.message {
            Message::PingReq { target, .. } | Message::IndirectAck { target, .. } => Some(target),
            Message::IndirectPing { origin, .. } | Message::ForwardedAck { origin, .. } => Some(origin),
            _ => None,
        };
        let is_ours = header.src.node == from && header.dst.node == to && from != to;
        if !is_ours || third.is_some_and(|third| third.node == to || !known(third.node)) {
            return None;
        }
        let count = if rest.is_empty() { 0 } else { usize::from(rest.try_get_u16().ok()?) };
        if rest.len() != count * MEMBER_BYTES
            || (matches!(header.message, Message::Announce) && body.len() > HEADER_BYTES)
        {
            return None;
        }
        let mut members = Vec::with_capacity(count);
        for _ in 0..count {
            members.push(*Codec.decode_member(&mut rest).ok()?.id());
        }
        if !members.iter().all(|member| known(member.node)) {
            return None;
        }
        let is_answer = matches!(header.message, Message::Ack(_) | Message::Feed);
        let answers = match header.message {
            Message::Ack(number) | Message::ForwardedAck { probe_number: number, .. } => Some(number),
            _ => None,
        };
        Some(Self { body, sender: header.src, is_answer, answers, receiver: header.dst, members })
    }
}

/// Kind, sender, incarnation, receiver.
const HEADER_BYTES: usize = 1 + IDENTITY_BYTES + 2 + IDENTITY_BYTES;

/// A packet of `foca` as a datagram.
pub(super) fn swim(packet: &[u8]) -> Bytes {
    let mut bytes = Vec::with_capacity(1 + packet.len());
    bytes.put_u8(SWIM);
    bytes.extend_from_slice(packet);
    bytes.into()
}

/// The number of a packet that is a direct probe.
pub(super) fn probe_number(packet: &[u8]) -> Option<ProbeNumber> {
    packet.get(HEADER_BYTES).copied().filter(|_| packet.first() == Some(&PING))
}

const PING: u8 = 0;
const ACK: u8 = 1;
const PING_REQ: u8 = 2;
const INDIRECT_PING: u8 = 3;
const INDIRECT_ACK: u8 = 4;
const FORWARDED_ACK: u8 = 5;
const ANNOUNCE: u8 = 6;
const FEED: u8 = 7;
const GOSSIP: u8 = 8;
const BROADCAST: u8 = 9;
const TURN_UNDEAD: u8 = 10;

/// Why a packet cannot be written or read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum CodecError {
    #[error("the packet has no room left")]
    Full,
    #[error("the packet is cut short")]
    Short,
    #[error("the packet has a kind or state that is not known")]
    Unknown,
}

/// Writes and reads what `foca` sends.
#[derive(Debug)]
pub(super) struct Codec;

fn put_identity(identity: &Identity, buf: &mut impl BufMut) {
    buf.put_u64_le(identity.node.0);
    buf.put_u64_le(identity.start);
}

fn get_identity(buf: &mut impl Buf) -> Result<Identity, CodecError> {
    let short = |_| CodecError::Short;
    Ok(Identity { node: NodeId(buf.try_get_u64_le().map_err(short)?), start: buf.try_get_u64_le().map_err(short)? })
}

/// The kind of a message, its number if it belongs to a probe, and the third node if it has one.
fn parts(message: &Message<Identity>) -> (u8, Option<u8>, Option<&Identity>) {
    match message {
        Message::Ping(number) => (PING, Some(*number), None),
        Message::Ack(number) => (ACK, Some(*number), None),
        Message::PingReq { target, probe_number } => (PING_REQ, Some(*probe_number), Some(target)),
        Message::IndirectPing { origin, probe_number } => (INDIRECT_PING, Some(*probe_number), Some(origin)),
        Message::IndirectAck { target, probe_number } => (INDIRECT_ACK, Some(*probe_number), Some(target)),
        Message::ForwardedAck { origin, probe_number } => (FORWARDED_ACK, Some(*probe_number), Some(origin)),
        Message::Announce => (ANNOUNCE, None, None),
        Message::Feed => (FEED, None, None),
        Message::Gossip => (GOSSIP, None, None),
        Message::Broadcast => (BROADCAST, None, None),
        Message::TurnUndead => (TURN_UNDEAD, None, None),
    }
}

fn get_message(kind: u8, buf: &mut impl Buf) -> Result<Message<Identity>, CodecError> {
    let has_third = (PING_REQ..=FORWARDED_ACK).contains(&kind);
    let number = if kind <= FORWARDED_ACK { buf.try_get_u8().map_err(|_| CodecError::Short)? } else { 0 };
    let third = if has_third { Some(get_identity(buf)?) } else { None };
    match (kind, third) {
        (PING, _) => Ok(Message::Ping(number)),
        (ACK, _) => Ok(Message::Ack(number)),
        (PING_REQ, Some(target)) => Ok(Message::PingReq { target, probe_number: number }),
        (INDIRECT_PING, Some(origin)) => Ok(Message::IndirectPing { origin, probe_number: number }),
        (INDIRECT_ACK, Some(target)) => Ok(Message::IndirectAck { target, probe_number: number }),
        (FORWARDED_ACK, Some(origin)) => Ok(Message::ForwardedAck { origin, probe_number: number }),
        (ANNOUNCE, _) => Ok(Message::Announce),
        (FEED, _) => Ok(Message::Feed),
        (GOSSIP, _) => Ok(Message::Gossip),
        (TURN_UNDEAD, _) => Ok(Message::TurnUndead),
        // Nothing is broadcast in this protocol.
        _ => Err(CodecError::Unknown),
    }
}

impl foca::Codec<Identity> for Codec {
    type Error = CodecError;

    fn encode_header(&mut self, header: &Header<Identity>, mut buf: impl BufMut) -> Result<(), CodecError> {
        let (kind, number, third) = parts(&header.message);
        if buf.remaining_mut() < HEADER_BYTES + 1 + IDENTITY_BYTES {
            return Err(CodecError::Full);
        }
        buf.put_u8(kind);
        put_identity(&header.src, &mut buf);
        buf.put_u16_le(header.src_incarnation);
        put_identity(&header.dst, &mut buf);
        number.into_iter().for_each(|number| buf.put_u8(number));
        third.into_iter().for_each(|third| put_identity(third, &mut buf));
        Ok(())
    }

    fn decode_header(&mut self, mut buf: impl Buf) -> Result<Header<Identity>, CodecError> {
        let kind = buf.try_get_u8().map_err(|_| CodecError::Short)?;
        let src = get_identity(&mut buf)?;
        let src_incarnation = buf.try_get_u16_le().map_err(|_| CodecError::Short)?;
        let dst = get_identity(&mut buf)?;
        Ok(Header { src, src_incarnation, dst, message: get_message(kind, &mut buf)? })
    }

    fn encode_member(&mut self, member: &Member<Identity>, mut buf: impl BufMut) -> Result<(), CodecError> {
        if buf.remaining_mut() < MEMBER_BYTES {
            return Err(CodecError::Full);
        }
        put_identity(member.id(), &mut buf);
        buf.put_u16_le(member.incarnation());
        buf.put_u8(match member.state() {
            State::Alive => 0,
            State::Suspect => 1,
            State::Down => 2,
        });
        Ok(())
    }

    fn decode_member(&mut self, mut buf: impl Buf) -> Result<Member<Identity>, CodecError> {
        let id = get_identity(&mut buf)?;
        let incarnation = buf.try_get_u16_le().map_err(|_| CodecError::Short)?;
        let state = match buf.try_get_u8().map_err(|_| CodecError::Short)? {
            0 => State::Alive,
            1 => State::Suspect,
            2 => State::Down,
            _ => return Err(CodecError::Unknown),
        };
        Ok(Member::new(id, incarnation, state))
    }
}

#[cfg(test)]
mod tests {
    use foca::Codec as _;

    use super::*;

    fn identity(node: u64) -> Identity {
        Identity { node: NodeId(node), start: node + 100 }
    }

    fn packet(message: Message<Identity>, members: &[Member<Identity>]) -> Bytes {
        let mut body = Vec::new();
        let header = Header { src: identity(1), src_incarnation: 7, dst: identity(2), message };
        Codec.encode_header(&header, &mut body).expect("room");
        if !members.is_empty() {
            body.put_u16(members.len() as u16);
            members.iter().for_each(|member| Codec.encode_member(member, &mut body).expect("room"));
        }
        swim(&body)
    }

    fn decode(bytes: &Bytes) -> Option<Datagram> {
        Datagram::decode(bytes, NodeId(1), NodeId(2), |node| node.0 < 10)
    }

    fn messages() -> Vec<Message<Identity>> {
        let third = identity(3);
        alloc::vec![
            Message::Ping(1),
            Message::Ack(2),
            Message::PingReq { target: third, probe_number: 3 },
            Message::IndirectPing { origin: third, probe_number: 4 },
            Message::IndirectAck { target: third, probe_number: 5 },
            Message::ForwardedAck { origin: third, probe_number: 6 },
            Message::Announce,
            Message::Feed,
            Message::Gossip,
            Message::TurnUndead,
        ]
    }

    #[test]
    fn every_kind_of_packet_is_read_as_it_was_written() {
        for message in messages() {
            let bytes = packet(message.clone(), &[]);
            assert_eq!(Codec.decode_header(&bytes[1..]).expect("a header").message, message);
            assert!(matches!(decode(&bytes), Some(Datagram::Swim(_))), "{message:?}");
        }
        let members = [Member::new(identity(4), 9, State::Suspect), Member::new(identity(5), 0, State::Down)];
        let Some(Datagram::Swim(read)) = decode(&packet(Message::Gossip, &members)) else { panic!("not read") };
        assert_eq!(read.members, [identity(4), identity(5)]);
        let check = Datagram::Check { start: 5, number: 6 }.encode();
        assert!(matches!(decode(&check), Some(Datagram::Check { start: 5, number: 6 })));
    }

    #[test]
    fn what_is_cut_too_long_or_of_strangers_is_refused() {
        let members = [Member::new(identity(4), 9, State::Suspect)];
        let good = packet(Message::Gossip, &members);
        for len in 0..good.len() {
            let rest_is_empty = len == 1 + HEADER_BYTES;
            assert_eq!(decode(&good.slice(..len)).is_some(), rest_is_empty, "{len} bytes");
        }
        let mut long = good.to_vec();
        long.push(0);
        assert!(decode(&long.into()).is_none());
        assert!(decode(&Bytes::from(alloc::vec![SWIM; MAX_DATAGRAM + 1])).is_none());
        assert!(decode(&packet(Message::Broadcast, &[])).is_none(), "nothing is broadcast");
        assert!(decode(&packet(Message::Announce, &members)).is_none());
        assert!(decode(&packet(Message::Gossip, &[Member::alive(identity(99))])).is_none(), "no node of the layout");
        let third = |node| Message::PingReq { target: identity(node), probe_number: 1 };
        assert!(decode(&packet(third(99), &[])).is_none());
        assert!(decode(&packet(third(2), &[])).is_none(), "nobody asks a node to probe itself");
        assert!(Datagram::decode(&good, NodeId(3), NodeId(2), |_| true).is_none(), "sent by another than it says");
        assert!(Datagram::decode(&good, NodeId(1), NodeId(4), |_| true).is_none(), "meant for another");
    }
}
