//! How our types become bytes, for the log, the store and the wire between nodes.
//!
//! The form is positional: a struct is its fields in order, an enum is one tag byte and then the
//! fields of the variant. Integers are LEB128 varints (signed ones zigzag first), except where a
//! layout says fixed width; a byte string, a `String` and a `Vec` carry their length first; an
//! `Option` is one byte, 0 or 1. There are no field numbers: every frame that holds these bytes carries a version
//! (log frames, peer hello, format file), and a change of layout is a new version.
//!
//! Decoding never panics and never allocates more than the input could fill: a length is checked
//! against what is left before anything is reserved. `Bytes` fields share the input's buffer.

use bytes::{Buf, Bytes};
use std::fmt;

/// Takes the bytes of a form.
pub trait Output {
    /// One more.
    fn push(&mut self, byte: u8);

    /// More, in this order.
    fn extend_from_slice(&mut self, bytes: &[u8]);
}

impl Output for Vec<u8> {
    #[inline]
    fn push(&mut self, byte: u8) {
        self.push(byte);
    }

    #[inline]
    fn extend_from_slice(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Counts them only.
struct Length(usize);

impl Output for Length {
    fn push(&mut self, _byte: u8) {
        self.0 += 1;
    }

    fn extend_from_slice(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }
}

/// Turns a value into bytes, appended to `out`.
pub trait Encode {
    /// Appends the value's form to `out`.
    fn encode(&self, out: &mut impl Output);

    /// How many bytes the value's form has.
    fn encoded_len(&self) -> usize {
        let mut length = Length(0);
        self.encode(&mut length);
        length.0
    }

    /// The value's form in a buffer of its own, which has room for that and `more` bytes.
    fn encoded_with_room(&self, more: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.encoded_len() + more);
        self.encode(&mut out);
        out
    }

    /// The value's form in a buffer of its own.
    fn encoded_vec(&self) -> Vec<u8> {
        self.encoded_with_room(0)
    }

    /// The value's form as `Bytes`.
    fn encoded(&self) -> Bytes {
        Bytes::from(self.encoded_vec())
    }
}

/// Reads a value back from bytes.
pub trait Decode: Sized {
    /// Takes one value off the front of `input`.
    fn decode(input: &mut Input) -> Result<Self, Malformed>;

    /// Reads a value that must fill `bytes` exactly.
    fn from_bytes(bytes: Bytes) -> Result<Self, Malformed> {
        let mut input = Input::new(bytes);
        let value = Self::decode(&mut input)?;
        input.finish()?;
        Ok(value)
    }
}

/// The bytes were not written by [`Encode`], or were damaged since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(
    /// What was being read.
    pub &'static str,
);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "malformed data while reading {}", self.0)
    }
}

impl std::error::Error for Malformed {}

/// Bytes being decoded, from the front.
#[derive(Clone, Debug)]
pub struct Input {
    bytes: Bytes,
    /// Lists within lists so far.
    depth: u32,
}

/// Lists within lists; more is hostile. Every recursive type recurses through a list, so this bounds the stack.
/// etcd's transactions may be nested 128 deep.
const DEPTH_MAX: u32 = 256;

impl Input {
    /// Starts at the front of `bytes`.
    pub fn new(bytes: Bytes) -> Self {
        Self { bytes, depth: 0 }
    }

    /// How many bytes are left.
    pub fn remaining(&self) -> usize {
        self.bytes.len()
    }

    /// Whether everything was read.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Takes one byte.
    pub fn byte(&mut self) -> Result<u8, Malformed> {
        if self.bytes.is_empty() {
            return Err(Malformed("a byte"));
        }
        Ok(self.bytes.get_u8())
    }

    /// Takes `len` bytes without copying them.
    pub fn take(&mut self, len: usize) -> Result<Bytes, Malformed> {
        if len > self.bytes.len() {
            return Err(Malformed("bytes past the end"));
        }
        Ok(self.bytes.split_to(len))
    }

    /// Takes a varint of up to 64 bits.
    pub fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let low = u64::from(byte & 0x7f);
            if shift == 63 && low > 1 {
                return Err(Malformed("a varint over 64 bits"));
            }
            value |= low << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed("a varint over 64 bits"))
    }

    /// Takes a length that cannot be larger than what is left, so that a hostile one reserves nothing.
    pub fn len(&mut self) -> Result<usize, Malformed> {
        let len = self.varint()?;
        if len > self.bytes.len() as u64 {
            return Err(Malformed("a length past the end"));
        }
        Ok(len as usize)
    }

    /// Errs when something is left over.
    pub fn finish(&self) -> Result<(), Malformed> {
        if self.bytes.is_empty() { Ok(()) } else { Err(Malformed("the end: bytes are left over")) }
    }
}

/// Appends a varint.
pub fn put_varint(out: &mut impl Output, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

macro_rules! unsigned {
    ($($ty:ty),*) => {$(
        impl Encode for $ty {
            fn encode(&self, out: &mut impl Output) {
                put_varint(out, u64::from(*self));
            }
        }
        impl Decode for $ty {
            fn decode(input: &mut Input) -> Result<Self, Malformed> {
                <$ty>::try_from(input.varint()?).map_err(|_| Malformed(concat!("a ", stringify!($ty))))
            }
        }
    )*};
}

unsigned!(u16, u32, u64);

impl Encode for u8 {
    fn encode(&self, out: &mut impl Output) {
        out.push(*self);
    }
}

impl Decode for u8 {
    fn decode(input: &mut Input) -> Result<Self, Malformed> {
        input.byte()
    }
}

impl Encode for i64 {
    fn encode(&self, out: &mut impl Output) {
        put_varint(out, ((self << 1) ^ (self >> 63)) as u64);
    }
}

impl Decode for i64 {
    fn decode(input: &mut Input) -> Result<Self, Malformed> {
        let raw = input.varint()?;
        Ok((raw >> 1) as i64 ^ -((raw & 1) as i64))
    }
}

impl Encode for bool {
    fn encode(&self, out: &mut impl Output) {
        out.push(u8::from(*self));
    }
}

impl Decode for bool {
    fn decode(input: &mut Input) -> Result<Self, Malformed> {
        match input.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed("a bool")),
        }
    }
}

impl Encode for Bytes {
    fn encode(&self, out: &mut impl Output) {
        put_varint(out, self.len() as u64);
        out.extend_from_slice(self);
    }
}

impl Decode for Bytes {
    fn decode(input: &mut Input) -> Result<Self, Malformed> {
        let len = input.len()?;
        input.take(len)
    }
}

impl Encode for String {
    fn encode(&self, out: &mut impl Output) {
        put_varint(out, self.len() as u64);
        out.extend_from_slice(self.as_bytes());
    }
}

impl Decode for String {
    fn decode(input: &mut Input) -> Result<Self, Malformed> {
        let raw = Bytes::decode(input)?;
        String::from_utf8(raw.to_vec()).map_err(|_| Malformed("a string in UTF-8"))
    }
}

impl<T: Encode> Encode for Option<T> {
    fn encode(&self, out: &mut impl Output) {
        match self {
            None => out.push(0),
            Some(value) => {
                out.push(1);
                value.encode(out);
            }
        }
    }
}

impl<T: Decode> Decode for Option<T> {
    fn decode(input: &mut Input) -> Result<Self, Malformed> {
        Ok(if bool::decode(input)? { Some(T::decode(input)?) } else { None })
    }
}

impl<T: Encode> Encode for Box<T> {
    fn encode(&self, out: &mut impl Output) {
        (**self).encode(out);
    }
}

impl<T: Decode> Decode for Box<T> {
    fn decode(input: &mut Input) -> Result<Self, Malformed> {
        Ok(Box::new(T::decode(input)?))
    }
}

impl<T: Encode> Encode for [T] {
    fn encode(&self, out: &mut impl Output) {
        put_varint(out, self.len() as u64);
        for item in self {
            item.encode(out);
        }
    }
}

impl<T: Encode> Encode for Vec<T> {
    fn encode(&self, out: &mut impl Output) {
        self.as_slice().encode(out);
    }
}

impl<T: Decode> Decode for Vec<T> {
    fn decode(input: &mut Input) -> Result<Self, Malformed> {
        // Every item takes at least one byte, so `len` items fit in what is left; but an item may be
        // far larger in memory than its one byte, so the reservation stays small and grows with what
        // was really read.
        let len = input.len()?;
        if input.depth >= DEPTH_MAX {
            return Err(Malformed("lists nested too deeply"));
        }
        input.depth += 1;
        let mut items = Vec::with_capacity(len.min(64));
        for _ in 0..len {
            items.push(T::decode(input)?);
        }
        input.depth -= 1;
        Ok(items)
    }
}

impl<A: Encode, B: Encode> Encode for (A, B) {
    fn encode(&self, out: &mut impl Output) {
        self.0.encode(out);
        self.1.encode(out);
    }
}

impl<A: Decode, B: Decode> Decode for (A, B) {
    fn decode(input: &mut Input) -> Result<Self, Malformed> {
        Ok((A::decode(input)?, B::decode(input)?))
    }
}

/// Writes [`Encode`] and [`Decode`] for a struct: its fields in the order given.
#[macro_export]
macro_rules! wire_struct {
    ($name:ident { $($field:ident),* $(,)? }) => {
        impl $crate::codec::Encode for $name {
            #[allow(unused_variables)]
            fn encode(&self, out: &mut impl $crate::codec::Output) {
                $( $crate::codec::Encode::encode(&self.$field, out); )*
            }
        }
        impl $crate::codec::Decode for $name {
            #[allow(unused_variables)]
            fn decode(input: &mut $crate::codec::Input) -> Result<Self, $crate::codec::Malformed> {
                Ok(Self { $( $field: $crate::codec::Decode::decode(input)?, )* })
            }
        }
    };
}

/// Writes [`Encode`] and [`Decode`] for a newtype: what it wraps.
#[macro_export]
macro_rules! wire_newtype {
    ($($name:ident),* $(,)?) => {$(
        impl $crate::codec::Encode for $name {
            fn encode(&self, out: &mut impl $crate::codec::Output) {
                $crate::codec::Encode::encode(&self.0, out);
            }
        }
        impl $crate::codec::Decode for $name {
            fn decode(input: &mut $crate::codec::Input) -> Result<Self, $crate::codec::Malformed> {
                Ok(Self($crate::codec::Decode::decode(input)?))
            }
        }
    )*};
}

/// Writes [`Encode`] and [`Decode`] for an enum: one tag byte, then the variant's named fields.
/// A variant without fields is written `tag => Variant {}`, a tuple variant `tag => Variant(a, b)`.
#[macro_export]
macro_rules! wire_enum {
    ($name:ident { $($tag:literal => $variant:ident $({ $($field:ident),* $(,)? })? $(( $($item:ident),* ))?),* $(,)? }) => {
        impl $crate::codec::Encode for $name {
            fn encode(&self, out: &mut impl $crate::codec::Output) {
                match self {
                    $( Self::$variant $({ $($field),* })? $(( $($item),* ))? => {
                        $crate::codec::Output::push(out, $tag);
                        $( $( $crate::codec::Encode::encode($field, out); )* )?
                        $( $( $crate::codec::Encode::encode($item, out); )* )?
                    } )*
                }
            }
        }
        impl $crate::codec::Decode for $name {
            fn decode(input: &mut $crate::codec::Input) -> Result<Self, $crate::codec::Malformed> {
                match input.byte()? {
                    $( $tag => {
                        $( $( let $field = $crate::codec::Decode::decode(input)?; )* )?
                        $( $( let $item = $crate::codec::Decode::decode(input)?; )* )?
                        Ok(Self::$variant $({ $($field),* })? $(( $($item),* ))?)
                    } )*
                    _ => Err($crate::codec::Malformed(concat!("the tag of a ", stringify!($name)))),
                }
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T: Encode + Decode + PartialEq + fmt::Debug>(value: T) {
        let bytes = value.encoded();
        assert_eq!(T::from_bytes(bytes.clone()).as_ref(), Ok(&value));
        for cut in 0..bytes.len() {
            assert!(T::from_bytes(bytes.slice(..cut)).is_err(), "{value:?} read from {cut} bytes");
        }
    }

    #[test]
    fn integers_come_back_whole_and_never_from_a_prefix() {
        for shift in 0..64 {
            for delta in [-1i64, 0, 1] {
                let value = (1u64 << shift).wrapping_add_signed(delta);
                check(value);
                check(value as i64);
                check((value as i64).wrapping_neg());
            }
        }
        check(0u8);
        check(u16::MAX);
        check(u32::MAX);
    }

    #[test]
    fn containers_come_back_whole_and_never_from_a_prefix() {
        check(Bytes::from_static(b"abc"));
        check(Bytes::new());
        check(String::from("größe"));
        check(Some(vec![(1u64, Bytes::from_static(b"x")), (2, Bytes::new())]));
        check(None::<u64>);
        check(true);
    }

    #[test]
    fn hostile_nesting_is_refused_before_the_stack_ends() {
        use crate::request::{Operation, TxnRequest};
        let nested = |depth: usize| {
            let mut txn = TxnRequest::default();
            for _ in 0..depth {
                txn = TxnRequest { success: vec![Operation::Txn(txn)], ..TxnRequest::default() };
            }
            txn
        };
        check_whole(&nested(128));
        assert!(TxnRequest::from_bytes(nested(300).encoded()).is_err());
        // No compares, one operation, which is a transaction: a hundred thousand times.
        let bomb = [0u8, 1, 3].repeat(100_000);
        assert!(TxnRequest::from_bytes(Bytes::from(bomb)).is_err());
    }

    fn check_whole<T: Encode + Decode + PartialEq + fmt::Debug>(value: &T) {
        assert_eq!(T::from_bytes(value.encoded()).as_ref(), Ok(value));
    }

    #[test]
    fn a_hostile_length_is_refused_before_anything_is_reserved() {
        let mut bytes = Vec::new();
        put_varint(&mut bytes, u64::MAX);
        assert!(Vec::<u64>::from_bytes(Bytes::from(bytes.clone())).is_err());
        assert!(Bytes::from_bytes(Bytes::from(bytes)).is_err());
        assert!(u64::from_bytes(Bytes::from_static(&[0xff; 10])).is_err());
        assert!(u16::from_bytes(70_000u64.encoded()).is_err());
    }
}
