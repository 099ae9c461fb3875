//! What becomes of good bytes: bits flip, ends go, ranges come twice or from elsewhere, and numbers become those at which readers are wrong.
//!
//! Nothing here knows a format. What makes damage pass a checksum is the target's ([`crate::Target::mend`]).

use quorate_consensus::random::Random;
use quorate_types::codec::put_varint;

/// Bytes of an input at most.
pub const BYTES_MAX: usize = 64 << 10;

/// Changes `bytes` in a few places; `other` is another good input of the same target.
pub fn mutate(bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    // Mostly few, so that most of the input stays good and what reads it gets far.
    let changes = 1 + random.between(0, 4) * random.between(0, 3);
    for _ in 0..changes {
        change(bytes, other, random);
    }
    bytes.truncate(BYTES_MAX);
}

fn change(bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    let length = bytes.len();
    if length == 0 {
        bytes.push(random.draw() as u8);
        return;
    }
    let at = below(random, length);
    match random.between(0, 16) {
        0 | 1 => bytes[at] ^= 1 << random.between(0, 8),
        2 => bytes[at] = random.draw() as u8,
        3 => bytes[at] = bytes[at].wrapping_add(if random.between(0, 2) == 0 { 1 } else { u8::MAX }),
        4 => bytes.truncate(at),
        5 => drop(bytes.drain(range(random, at, length))),
        6 => {
            let copy = bytes[range(random, at, length)].to_vec();
            insert(bytes, below(random, length + 1), &copy);
        }
        7 => repeat(bytes, at, random),
        8 if !other.is_empty() => {
            bytes.truncate(at);
            bytes.extend_from_slice(&other[below(random, other.len())..]);
        }
        9 if !other.is_empty() => {
            let from = below(random, other.len());
            let part = &other[range(random, from, other.len())];
            let end = length.min(at + part.len());
            bytes.splice(at..end, part.iter().copied());
        }
        10 => {
            let noise: Vec<u8> = (0..1 + random.between(0, 16)).map(|_| random.draw() as u8).collect();
            insert(bytes, at, &noise);
        }
        11 => digits(bytes, at, random),
        // In a text the numbers are there to be read.
        12..16 if bytes[at].is_ascii_graphic() && random.between(0, 2) == 0 => digits(bytes, at, random),
        12 | 13 => fixed_width(bytes, at, random),
        _ => varint(bytes, at, random),
    }
}

fn below(random: &mut Random, end: usize) -> usize {
    random.between(0, end as u64) as usize
}

/// From `at` on, mostly short.
fn range(random: &mut Random, at: usize, length: usize) -> std::ops::Range<usize> {
    let reach = if random.between(0, 4) == 0 { length - at } else { (length - at).min(24) };
    at..at + 1 + below(random, reach)
}

fn insert(bytes: &mut Vec<u8>, at: usize, part: &[u8]) {
    if bytes.len() + part.len() <= BYTES_MAX {
        bytes.splice(at..at, part.iter().copied());
    }
}

/// A short range many times, as a list of very many small things.
fn repeat(bytes: &mut Vec<u8>, at: usize, random: &mut Random) {
    let part = bytes[range(random, at, bytes.len())].to_vec();
    let room = BYTES_MAX.saturating_sub(bytes.len()) / part.len();
    let times = match random.between(0, 8) {
        0 => below(random, room + 1),
        _ => below(random, room.min(64) + 1),
    };
    bytes.splice(at..at, part.repeat(times));
}

/// Where readers are wrong, given what stands there and how much follows.
fn number(stands: u64, left: usize, random: &mut Random) -> u64 {
    match random.between(0, 12) {
        0 => 0,
        1 => 1,
        2 => u64::MAX,
        3 => stands.wrapping_add(1),
        4 => stands.wrapping_sub(1),
        5 => left as u64,
        6 => left as u64 + 1,
        7 => 1 << 60,
        8 => i64::MAX as u64 + random.between(0, 2),
        9 => (1u64 << random.between(0, 64)).wrapping_sub(random.between(0, 2)),
        10 => stands.wrapping_mul(2),
        _ => random.between(0, 300),
    }
}

fn fixed_width(bytes: &mut [u8], at: usize, random: &mut Random) {
    let width = 1 << random.between(0, 4);
    // Fields stand at multiples of their width more often than not.
    let at = if random.between(0, 2) == 0 { at } else { at - at % width };
    let left = bytes.len() - at;
    let Some(field) = bytes.get_mut(at..at + width) else { return };
    let is_little = random.between(0, 2) == 0;
    let mut raw = [0; 8];
    raw[..width].copy_from_slice(field);
    if !is_little {
        raw[..width].reverse();
    }
    let new = number(u64::from_le_bytes(raw), left - width, random).to_le_bytes();
    field.copy_from_slice(&new[..width]);
    if !is_little {
        field.reverse();
    }
}

fn varint(bytes: &mut Vec<u8>, at: usize, random: &mut Random) {
    let long = bytes[at..].iter().take(9).take_while(|byte| **byte & 0x80 != 0).count();
    let end = bytes.len().min(at + long + 1);
    let stands =
        bytes[at..end].iter().rev().fold(0u64, |number, byte| (number << 7) | u64::from(byte & 0x7f));
    let mut new = Vec::new();
    put_varint(&mut new, number(stands, bytes.len() - end, random));
    bytes.splice(at..end, new);
}

/// The number in decimal or hexadecimal digits that stands at or behind `at`.
fn digits(bytes: &mut Vec<u8>, at: usize, random: &mut Random) {
    let Some(from) = bytes[at..].iter().position(u8::is_ascii_digit).map(|skipped| at + skipped) else {
        return;
    };
    let count = bytes[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let stands = bytes[from..from + count]
        .iter()
        .fold(0u64, |number, digit| number.wrapping_mul(10).wrapping_add(u64::from(digit - b'0')));
    let new = number(stands, bytes.len() - from - count, random);
    let text = match random.between(0, 5) {
        0 => format!("{new:x}"),
        1 => format!("{new:08x}"),
        2 => format!("-{new}"),
        3 => format!("{new}0"),
        _ => new.to_string(),
    };
    bytes.splice(from..from + count, text.into_bytes());
}
