//! Values of any type that has a [`Decode`], out of chance: bytes that lean towards small numbers are decoded, and what comes out is a value.
//!
//! In our form tags, lengths and options are small numbers, so such bytes decode often; where they do not, others are tried. So every type has values of
//! all its variants without a generator of its own, and a new field is grown as soon as it is decoded.

use quorate_consensus::random::Random;
use quorate_types::{Bytes, Decode, Encode, codec::Input};

/// Attempts before it is taken for a mistake.
const ATTEMPTS_MAX: usize = 1_000_000;

/// A value that decodes.
pub fn grow<T: Decode>(random: &mut Random) -> T {
    for _ in 0..ATTEMPTS_MAX {
        let mut input = Input::new(soil(random));
        if let Ok(value) = T::decode(&mut input) {
            return value;
        }
    }
    panic!(
        "no value of {} in {ATTEMPTS_MAX} attempts: it needs seeds of its own",
        std::any::type_name::<T>()
    );
}

/// Its form.
pub fn grown<T: Decode + Encode>(random: &mut Random) -> Vec<u8> {
    grow::<T>(random).encoded_vec()
}

/// Some bytes, for a key or a value.
pub fn text(random: &mut Random) -> Bytes {
    let length = random.between(0, 12);
    let alphabet = b"ab/\0\xff";
    (0..length).map(|_| alphabet[random.between(0, alphabet.len() as u64) as usize]).collect()
}

fn soil(random: &mut Random) -> Bytes {
    let ceiling = 2 + random.between(0, 6);
    let wild = random.between(0, 12);
    // The first is the tag of what is outermost: all of them should come.
    let first = random.between(0, 24) as u8;
    let rest = (0..400).map(|_| match random.between(0, 100) {
        roll if roll < wild => random.draw() as u8,
        roll if roll < 2 * wild => random.between(0, 128) as u8,
        _ => random.between(0, ceiling) as u8,
    });
    let rest: Vec<u8> = rest.collect();
    [first].into_iter().chain(rest).collect()
}
