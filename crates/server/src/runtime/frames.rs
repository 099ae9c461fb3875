//! Frames of the protocol between nodes: `length u32 LE, CRC32C u32 LE, payload`, the payload a list of [`PeerMessage`]s. `docs/peer.md` draws them.

use bytes::{Bytes, BytesMut};
use quorate_node::PeerMessage;
use quorate_types::Encode;
use std::io;

/// A longer frame is not believed.
const FRAME_BYTES_MAX: usize = 256 << 20;
/// Room is made at once for frames up to this size; a chunk of a snapshot fits.
const RESERVED_BYTES_MAX: usize = 2 << 20;

/// Appends a frame with these messages.
pub(crate) fn frame(batch: &[PeerMessage], out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; 8]);
    batch.encode(out);
    let payload = &out[start + 8..];
    let (length, checksum) = (payload.len() as u32, crc32c::crc32c(payload));
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    out[start + 4..start + 8].copy_from_slice(&checksum.to_le_bytes());
}

/// Takes one whole frame off the buffer, if there is one.
pub(crate) fn next_frame(buffer: &mut BytesMut) -> io::Result<Option<Bytes>> {
    if buffer.len() < 8 {
        return Ok(None);
    }
    let word = |at: usize| u32::from_le_bytes([buffer[at], buffer[at + 1], buffer[at + 2], buffer[at + 3]]);
    let (length, checksum) = (word(0) as usize, word(4));
    if length > FRAME_BYTES_MAX {
        let problem = format!("a frame of {length} bytes, at most {FRAME_BYTES_MAX} are allowed");
        return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
    }
    if buffer.len() < 8 + length {
        // At once, so that what came is not copied time and again; beyond that it grows as bytes really come, not as the header claims.
        buffer.reserve((8 + length).min(RESERVED_BYTES_MAX) - buffer.len().min(RESERVED_BYTES_MAX));
        return Ok(None);
    }
    let payload = buffer.split_to(8 + length).freeze().slice(8..);
    if crc32c::crc32c(&payload) != checksum {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame's checksum does not match"));
    }
    Ok(Some(payload))
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_types::Decode;

    #[test]
    fn frames_come_back_whole_and_damage_is_noticed() {
        let gone = PeerMessage::SnapshotGone {
            group: quorate_types::GroupId::FIRST,
            position: quorate_types::Position::default(),
        };
        let mut wire = Vec::new();
        frame(std::slice::from_ref(&gone), &mut wire);
        for cut in 0..wire.len() {
            assert!(next_frame(&mut BytesMut::from(&wire[..cut])).unwrap().is_none());
        }
        let payload = next_frame(&mut BytesMut::from(&wire[..])).unwrap().unwrap();
        assert_eq!(Vec::<PeerMessage>::from_bytes(payload).unwrap(), vec![gone]);
        for at in 4..wire.len() {
            let mut damaged = wire.clone();
            damaged[at] ^= 1;
            assert!(next_frame(&mut BytesMut::from(&damaged[..])).is_err(), "byte {at}");
        }
        let mut absurd = wire;
        absurd[3] = 0xff;
        assert!(next_frame(&mut BytesMut::from(&absurd[..])).is_err());
    }
}
