//! Frames, read from a stream in pieces of any size.

use bytes::Bytes;

use rejoin_wire::{Class, Decoder, Frame};

use crate::{fuzz, meter};

/// Bytes in front of a body: its length and the frame's id.
const HEADER: usize = 12;
/// What the decoder may hold beyond what has arrived: a growth step, and the list of frames.
const STEP: usize = 2 << 20;

/// What a stream means, read at leisure: its frames, and whether a length in it is above the limit.
fn meaning(mut stream: &[u8], limit: u32) -> (Vec<(u64, Vec<u8>)>, bool) {
    let mut frames = Vec::new();
    while let Some((header, rest)) = stream.split_at_checked(HEADER) {
        let (len, id) = header.split_at(4);
        let len = u32::from_le_bytes(len.try_into().unwrap());
        if len > limit {
            return (frames, true);
        }
        let Some((body, rest)) = rest.split_at_checked(len as usize) else { break };
        frames.push((u64::from_le_bytes(id.try_into().unwrap()), body.to_vec()));
        stream = rest;
    }
    (frames, false)
}

/// The first two bytes are the limit and how the rest is cut: into one, or into pieces of so many bytes.
fn property(bytes: &[u8]) {
    let (&[limit, step], stream) = bytes.split_first_chunk().unwrap_or((&[0, 0], &[]));
    let limit = [0, 1, 40, 300, 1 << 16, u32::MAX][usize::from(limit) % 6];
    let step = if step == 0 { stream.len().max(1) } else { usize::from(step) };
    let mut decoder = Decoder::new(Class::Request, limit);
    let (mut frames, mut refused): (Vec<Frame>, bool) = (Vec::new(), false);
    let (_, held) = meter::peak(|| {
        for chunk in stream.chunks(step) {
            if let Err(oversized) = decoder.push(Bytes::copy_from_slice(chunk), &mut frames) {
                assert!(oversized.len > oversized.limit && oversized.limit == limit);
                refused = true;
                break;
            }
        }
    });
    assert!(held <= 4 * stream.len() + STEP, "{held} bytes held for {} that came", stream.len());
    let (expected, too_large) = meaning(stream, limit);
    let found: Vec<(u64, Vec<u8>)> = frames.iter().map(|frame| (frame.id, frame.body.to_vec())).collect();
    assert_eq!((found, refused), (expected, too_large));
    // What was understood, and nothing else, gives the same bytes again.
    let mut again = Vec::new();
    for frame in &frames {
        again.extend_from_slice(&(frame.body.len() as u32).to_le_bytes());
        again.extend_from_slice(&frame.id.to_le_bytes());
        again.extend_from_slice(&frame.body);
    }
    assert!(stream.starts_with(&again));
}

fn stream(limit: u8, step: u8, bodies: &[&[u8]]) -> Vec<u8> {
    let mut bytes = vec![limit, step];
    for (id, body) in bodies.iter().enumerate() {
        bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&(id as u64).to_le_bytes());
        bytes.extend_from_slice(body);
    }
    bytes
}

#[test]
fn frames() {
    let seeds = vec![
        stream(3, 0, &[b"", b"body", &[7; 290]]),
        stream(3, 1, &[b"a", b"b", b"", b"c"]),
        stream(4, 13, &[&[1; 2000], b"behind it"]),
        stream(5, 255, &[&[2; 70], &[3; 300]]),
    ];
    fuzz("frames", seeds, property);
}
