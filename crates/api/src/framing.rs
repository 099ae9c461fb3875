//! How a message stands in a stream of gRPC: a byte that says whether it is compressed, its length in four bytes, and itself
//! (gRPC over HTTP/2, `PROTOCOL-HTTP2.md`).

use bytes::BufMut;
use prost::Message;
use tonic::Status;

/// Bytes in front of a message.
pub const PREFIX_BYTES: usize = 5;

/// Writes a message behind its prefix, not compressed.
///
/// # Errors
/// It is longer than a length can say.
pub fn push(frames: &mut Vec<u8>, message: &impl Message) -> Result<(), Status> {
    push_with(frames, message, &[])
}

/// The same of a message whose last fields are encoded already.
///
/// # Errors
/// It is longer than a length can say.
pub fn push_with(frames: &mut Vec<u8>, message: &impl Message, last: &[u8]) -> Result<(), Status> {
    let length = message.encoded_len() + last.len();
    // Others hold it in 31 bits.
    let said = u32::try_from(length).ok().filter(|length| i32::try_from(*length).is_ok());
    let said = said.ok_or_else(|| {
        Status::out_of_range(format!("Error, encoded message length too large: found {length} bytes"))
    })?;
    frames.reserve(PREFIX_BYTES + length);
    frames.put_u8(0);
    frames.put_u32(said);
    message.encode_raw(frames);
    frames.extend_from_slice(last);
    Ok(())
}
