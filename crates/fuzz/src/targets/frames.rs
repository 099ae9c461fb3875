//! Connections from peers.

use super::{Target, nothing};
use crate::grow::grow;

const FRAME_HEADER: usize = 8;

pub(super) const FRAMES: Target = Target {
    name: "peer-frames",
    what: "frames of messages over a connection from another node",
    seed: |random| {
        let frames = (0..random.between(1, 4)).map(|_| quorate::untrusted::framed(&grow::<Vec<_>>(random)));
        frames.collect::<Vec<_>>().concat()
    },
    mend: |bytes| {
        let mut at = 0;
        while at + FRAME_HEADER <= bytes.len() {
            let length =
                u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]) as usize;
            let end = at + FRAME_HEADER + length;
            if end > bytes.len() {
                break;
            }
            let checksum = crc32c::crc32c(&bytes[at + FRAME_HEADER..end]);
            bytes[at + 4..at + FRAME_HEADER].copy_from_slice(&checksum.to_le_bytes());
            at = end;
        }
    },
    run: quorate::untrusted::peer_frames,
    gate: 8_000,
};

pub(super) const HELLO: Target = Target {
    name: "hello",
    what: "how a connection from another node, or whoever it is, begins",
    seed: |_| quorate::untrusted::good_hello(),
    mend: nothing,
    run: quorate::untrusted::hello,
    gate: 8_000,
};
