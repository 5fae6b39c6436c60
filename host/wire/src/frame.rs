//! Frames: `u32 le body length ‖ u64 le id ‖ body`, and the incremental decoder. Pure: no I/O.

use std::fmt;

use bytes::{Buf, Bytes};

/// Bytes in front of a body.
pub(crate) const HEADER: usize = 12;

/// The buffer of a partial body grows by the bytes received so far, at least by this many. So a false length costs its
/// sender as many bytes as it costs the receiver, and a body is copied twice at most while its buffer grows.
const MIN_GROWTH: usize = 64 << 10;

/// A traffic class. Each has its own stream, so that classes do not wait for each other; [`Class::Control`] is written
/// first, [`Class::Bulk`] last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Class {
    /// Liveness, gossip, catalog: small and urgent.
    Control,
    /// Requests and replies of clients and coordinators.
    Request,
    /// Those of them that are large. A caller waits for them, but small ones must not.
    Large,
    /// Exchange, module downloads: large, and nobody waits for them.
    Bulk,
}

impl Class {
    /// Every class, in the order in which streams are opened and written.
    pub const ALL: [Self; Self::COUNT] = [Self::Control, Self::Request, Self::Large, Self::Bulk];

    /// The number of classes.
    pub const COUNT: usize = 4;

    /// The class's place in [`Class::ALL`], which is also its byte on the wire.
    #[must_use]
    pub fn index(self) -> usize {
        match self {
            Self::Control => 0,
            Self::Request => 1,
            Self::Large => 2,
            Self::Bulk => 3,
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Control => "control",
            Self::Request => "request",
            Self::Large => "large",
            Self::Bulk => "bulk",
        })
    }
}

/// One message: an id, usually shared by a request and its reply, and a body that this crate does not interpret.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    /// The class, and so the stream, of the frame.
    pub class: Class,
    /// The id chosen by the sender.
    pub id: u64,
    /// The body, from 0 bytes to the class's limit.
    pub body: Bytes,
}

impl Frame {
    /// Bytes on the stream: header and body.
    pub(crate) fn cost(&self) -> usize {
        HEADER + self.body.len()
    }
}

/// The twelve bytes in front of a body of `len` bytes.
pub(crate) fn header(len: u32, id: u64) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..4].copy_from_slice(&len.to_le_bytes());
    header[4..].copy_from_slice(&id.to_le_bytes());
    header
}

/// Length and id out of a header.
fn parse_header(header: &[u8; HEADER]) -> (u32, u64) {
    let [l0, l1, l2, l3, id @ ..] = *header;
    (u32::from_le_bytes([l0, l1, l2, l3]), u64::from_le_bytes(id))
}

/// A length above the class's limit. The rest of the stream cannot be decoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Oversized {
    /// The length that a header names, bytes.
    pub len: u32,
    /// The most that is taken, bytes.
    pub limit: u32,
}

/// Decodes a byte stream into frames. A frame within one chunk is a slice of that chunk. A frame that spans chunks is
/// collected in a buffer, which is at most twice as large as the bytes received.
#[derive(Debug)]
pub struct Decoder {
    class: Class,
    limit: u32,
    header: [u8; HEADER],
    have: usize,
    body: Option<Partial>,
}

/// A body of which some bytes are missing.
#[derive(Debug)]
struct Partial {
    id: u64,
    len: usize,
    bytes: Vec<u8>,
}

impl Decoder {
    /// A decoder for one stream. Bodies above `limit` bytes are refused.
    #[must_use]
    pub fn new(class: Class, limit: u32) -> Self {
        Self { class, limit, header: [0; HEADER], have: 0, body: None }
    }

    /// Changes the limit for frames whose header was not read yet.
    pub fn set_limit(&mut self, limit: u32) {
        self.limit = limit;
    }

    /// Decodes the next bytes of the stream, and appends the frames that are complete to `out`.
    ///
    /// # Errors
    /// [`Oversized`] if a header names a body above the limit; the frames before it are in `out`.
    pub fn push(&mut self, mut chunk: Bytes, out: &mut Vec<Frame>) -> Result<(), Oversized> {
        loop {
            if let Some(partial) = &mut self.body {
                if !partial.fill(&mut chunk) {
                    return Ok(());
                }
                let Some(done) = self.body.take() else { return Ok(()) };
                out.push(Frame { class: self.class, id: done.id, body: done.bytes.into() });
            }
            if !self.fill_header(&mut chunk) {
                return Ok(());
            }
            let (len, id) = parse_header(&self.header);
            if len > self.limit {
                return Err(Oversized { len, limit: self.limit });
            }
            self.have = 0;
            let len = len as usize;
            if chunk.len() >= len {
                out.push(Frame { class: self.class, id, body: chunk.split_to(len) });
            } else {
                self.body = Some(Partial { id, len, bytes: Vec::new() });
            }
        }
    }

    /// Moves bytes into the header; true once it is whole.
    fn fill_header(&mut self, chunk: &mut Bytes) -> bool {
        let take = (HEADER - self.have).min(chunk.len());
        chunk.copy_to_slice(&mut self.header[self.have..self.have + take]);
        self.have += take;
        self.have == HEADER
    }
}

impl Partial {
    /// Moves bytes into the body; true once it is whole.
    fn fill(&mut self, chunk: &mut Bytes) -> bool {
        let missing = self.len - self.bytes.len();
        let take = missing.min(chunk.len());
        if self.bytes.capacity() - self.bytes.len() < take {
            let growth = self.bytes.len().max(MIN_GROWTH).max(take).min(missing);
            self.bytes.reserve_exact(growth);
        }
        self.bytes.extend_from_slice(&chunk[..take]);
        chunk.advance(take);
        take == missing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(frames: &[(u64, Vec<u8>)]) -> Vec<u8> {
        frames.iter().flat_map(|(id, body)| [&header(body.len() as u32, *id)[..], body].concat()).collect()
    }

    #[test]
    fn every_cut_gives_the_same_frames() {
        let frames = [(1, vec![]), (u64::MAX, vec![7; 5]), (3, vec![9; 40]), (4, vec![]), (5, vec![1])];
        let stream = encode(&frames);
        for step in 1..=stream.len() {
            let mut decoder = Decoder::new(Class::Request, 64);
            let mut out = Vec::new();
            for chunk in stream.chunks(step) {
                decoder.push(Bytes::copy_from_slice(chunk), &mut out).unwrap();
            }
            let got: Vec<_> = out.into_iter().map(|frame| (frame.id, frame.body.to_vec())).collect();
            assert_eq!(got, frames, "cut into pieces of {step}");
        }
    }

    #[test]
    fn an_oversized_length_is_refused_from_its_header_alone() {
        let mut decoder = Decoder::new(Class::Bulk, 100);
        let refused = decoder.push(Bytes::copy_from_slice(&header(101, 1)), &mut Vec::new());
        assert_eq!(refused, Err(Oversized { len: 101, limit: 100 }));
        assert!(Decoder::new(Class::Bulk, 100).push(Bytes::copy_from_slice(&header(100, 1)), &mut Vec::new()).is_ok());
    }

    #[test]
    fn a_lying_length_allocates_no_more_than_twice_what_it_sends() {
        let mut decoder = Decoder::new(Class::Bulk, u32::MAX);
        let mut out = Vec::new();
        decoder.push(Bytes::copy_from_slice(&header(u32::MAX, 1)), &mut out).unwrap();
        let mut arrived = 0;
        for _ in 0..400 {
            decoder.push(Bytes::from(vec![0; 10_000]), &mut out).unwrap();
            arrived += 10_000;
            let held = decoder.body.as_ref().unwrap().bytes.capacity();
            assert!(held <= 2 * arrived + MIN_GROWTH, "{held} bytes held for {arrived} that came");
        }
        assert!(out.is_empty());
    }
}
