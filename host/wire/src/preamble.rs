//! The preamble, the first eight bytes of every stream in each direction: `"rejn" ‖ u16 le version ‖ class ‖ 0`. The
//! dialer opens one stream for each class in the order of [`Class::ALL`] and sends its preambles first. The acceptor
//! checks each and answers with its own.

use quinn::{ReadExactError, RecvStream, SendStream};

use crate::{Class, CloseCode, Closed, Error};

const MAGIC: [u8; 4] = *b"rejn";
/// The version of the framing. Both sides refuse any other.
const VERSION: u16 = 1;
const PREAMBLE: usize = 8;

/// The stream of one class, ready for frames.
pub(crate) type Stream = (SendStream, RecvStream);

/// The streams of a connection, in the order of [`Class::ALL`].
pub(crate) type Streams = [Stream; Class::COUNT];

/// Opens the streams and waits until the other side has answered on each.
pub(crate) async fn open(connection: &quinn::Connection) -> Result<Streams, Error> {
    let mut streams = Vec::with_capacity(Class::COUNT);
    for class in Class::ALL {
        let (mut send, recv) = connection.open_bi().await.map_err(lost)?;
        send_preamble(&mut send, class).await?;
        streams.push((send, recv));
    }
    for (class, (_, recv)) in Class::ALL.into_iter().zip(&mut streams) {
        expect_preamble(recv, class).await?;
    }
    into_array(streams)
}

/// Accepts the streams and answers on each.
pub(crate) async fn accept(connection: &quinn::Connection) -> Result<Streams, Error> {
    let mut streams = Vec::with_capacity(Class::COUNT);
    for class in Class::ALL {
        let (mut send, mut recv) = connection.accept_bi().await.map_err(lost)?;
        expect_preamble(&mut recv, class).await?;
        send_preamble(&mut send, class).await?;
        streams.push((send, recv));
    }
    into_array(streams)
}

/// The close code and text that the other side is sent for an error of the handshake.
pub(crate) fn close_reason(error: &Error) -> (CloseCode, String) {
    let code = match error {
        Error::Version { .. } => CloseCode::VERSION,
        Error::NotANode { .. } | Error::NoCertificate => CloseCode::NOT_A_NODE,
        Error::NoSlot { .. } => CloseCode::BUSY,
        _ => CloseCode::PROTOCOL,
    };
    let words = match error {
        Error::Version { theirs, .. } => {
            format!("this side speaks wire version {VERSION}, you speak {theirs}; upgrade the older one")
        }
        Error::NotANode { subject } => format!("{subject} is not a node"),
        Error::NoSlot { .. } => "all slots are taken; try another node".into(),
        Error::NoCertificate => "a peer shows a node's certificate".into(),
        _ => "the streams do not begin as Rejoin's do".into(),
    };
    (code, words)
}

async fn send_preamble(send: &mut SendStream, class: Class) -> Result<(), Error> {
    // Streams of a higher priority are also written into a packet first.
    let _ = send.set_priority(Class::ALL.len() as i32 - class.index() as i32);
    send.write_all(&preamble(class)).await.map_err(|error| match error {
        quinn::WriteError::ConnectionLost(error) => lost(error),
        _ => Error::Foreign,
    })
}

fn preamble(class: Class) -> [u8; PREAMBLE] {
    let [m0, m1, m2, m3] = MAGIC;
    let [v0, v1] = VERSION.to_le_bytes();
    [m0, m1, m2, m3, v0, v1, class.index() as u8, 0]
}

async fn expect_preamble(recv: &mut RecvStream, class: Class) -> Result<(), Error> {
    let mut got = [0; PREAMBLE];
    recv.read_exact(&mut got).await.map_err(|error| match error {
        ReadExactError::ReadError(quinn::ReadError::ConnectionLost(error)) => lost(error),
        _ => Error::Foreign,
    })?;
    check(got, class)
}

fn check(got: [u8; PREAMBLE], class: Class) -> Result<(), Error> {
    let theirs = u16::from_le_bytes([got[4], got[5]]);
    if got[..4] != MAGIC {
        Err(Error::Foreign)
    } else if theirs != VERSION {
        Err(Error::Version { ours: VERSION, theirs })
    } else if got != preamble(class) {
        Err(Error::Foreign)
    } else {
        Ok(())
    }
}

fn into_array(streams: Vec<Stream>) -> Result<Streams, Error> {
    streams.try_into().map_err(|_| Error::Foreign)
}

fn lost(error: quinn::ConnectionError) -> Error {
    Error::Lost(Closed::from(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_own_preamble_of_the_right_class_passes() {
        assert_eq!(&preamble(Class::Bulk), b"rejn\x01\x00\x03\x00", "these bytes are the protocol");
        for class in Class::ALL {
            assert!(check(preamble(class), class).is_ok());
        }
        assert!(matches!(check(preamble(Class::Bulk), Class::Request), Err(Error::Foreign)));
        assert!(matches!(check(*b"rejn\x02\x00\x00\x00", Class::Control), Err(Error::Version { ours: 1, theirs: 2 })));
        assert!(matches!(check(*b"rejn\x01\x00\x00\x01", Class::Control), Err(Error::Foreign)));
        assert!(matches!(check(*b"GET / HT", Class::Control), Err(Error::Foreign)));
    }
}
