//! gRPC's bytes in HTTP/2's frames (gRPC over HTTP/2, `PROTOCOL-HTTP2.md`).
//!
//! A message is a byte that says whether it is compressed, its length in four bytes, and itself. Messages and DATA frames begin and end where they like.
//! What became of a call is in its trailers, or in the head if there was nothing else to say.

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use prost::Message;
use quorate_api::framing::{PREFIX_BYTES, push};
use tonic::{Code, Status};

/// The largest message that is taken; a larger one ends its call.
pub(crate) const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// A message with what goes before it.
pub(crate) fn framed(message: &impl Message) -> Result<Bytes, Status> {
    let length = message.encoded_len();
    if length > MESSAGE_BYTES_MAX {
        return Err(Status::out_of_range(format!("a request of {length} bytes")));
    }
    let mut buffer = Vec::new();
    push(&mut buffer, message)?;
    Ok(Bytes::from(buffer))
}

/// What has come and is no whole message yet. One of both is empty: a message that came in one piece is not copied.
#[derive(Debug, Default)]
pub(crate) struct Unframer {
    piece: Bytes,
    pieces: BytesMut,
}

impl Unframer {
    /// More has come.
    pub(crate) fn push(&mut self, bytes: Bytes) {
        if self.is_empty() {
            self.piece = bytes;
            return;
        }
        if self.pieces.is_empty() {
            self.pieces.extend_from_slice(&std::mem::take(&mut self.piece));
        }
        self.pieces.extend_from_slice(&bytes);
    }

    /// The next message, if it is whole.
    pub(crate) fn pop(&mut self) -> Result<Option<Bytes>, Status> {
        let held: &[u8] = if self.pieces.is_empty() { &self.piece } else { &self.pieces };
        let Some(([is_compressed, length @ ..], rest)) = held.split_first_chunk::<PREFIX_BYTES>() else {
            return Ok(None);
        };
        if *is_compressed != 0 {
            return Err(Status::internal("the answer is compressed, which nobody has asked for"));
        }
        let length = u32::from_be_bytes(*length) as usize;
        if length > MESSAGE_BYTES_MAX {
            let problem = format!("an answer of {length} bytes: more than {MESSAGE_BYTES_MAX} are not taken");
            return Err(Status::out_of_range(problem));
        }
        if rest.len() < length {
            return Ok(None);
        }
        let whole = PREFIX_BYTES + length;
        let framed = match self.pieces.is_empty() {
            true => self.piece.split_to(whole),
            false => self.pieces.split_to(whole).freeze(),
        };
        Ok(Some(framed.slice(PREFIX_BYTES..)))
    }

    /// Whether nothing is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.piece.is_empty() && self.pieces.is_empty()
    }
}

/// What became of a call, if these headers say it.
pub(crate) fn outcome(headers: &HeaderMap) -> Option<Result<(), Status>> {
    let code = Code::from_bytes(headers.get("grpc-status")?.as_bytes());
    if code == Code::Ok {
        return Some(Ok(()));
    }
    let message = headers.get("grpc-message").map(|message| percent_decoded(message.as_bytes()));
    Some(Err(Status::new(code, message.unwrap_or_default())))
}

/// `%C3%A4` is «ä». What is not as it should be stays as it is.
fn percent_decoded(text: &[u8]) -> String {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let digit = |at: usize| after.get(at).and_then(|digit| char::from(*digit).to_digit(16));
        match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((high * 16 + low) as u8);
                rest = &after[2..];
            }
            _ => {
                decoded.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_api::pb::PutRequest;

    fn put(value_bytes: usize) -> PutRequest {
        PutRequest { key: "k".into(), value: vec![b'v'; value_bytes].into(), ..Default::default() }
    }

    #[test]
    fn a_message_says_its_length_and_that_it_is_not_compressed() {
        let bytes = framed(&put(300)).unwrap();
        let length = (bytes.len() - 5) as u32;
        assert_eq!(bytes[..5], [&[0], length.to_be_bytes().as_slice()].concat());
        assert_eq!(PutRequest::decode(&bytes[5..]).unwrap(), put(300));
    }

    #[test]
    fn messages_come_back_however_they_are_split() {
        let messages = [put(0), put(300), PutRequest::default(), put(2)];
        let stream: Vec<u8> = messages.iter().flat_map(|message| framed(message).unwrap()).collect();
        for size in 1..=stream.len() {
            let (mut unframer, mut found) = (Unframer::default(), Vec::new());
            for chunk in stream.chunks(size) {
                unframer.push(Bytes::copy_from_slice(chunk));
                while let Some(message) = unframer.pop().unwrap() {
                    found.push(PutRequest::decode(message).unwrap());
                }
            }
            assert_eq!(found, messages, "in pieces of {size}");
            assert!(unframer.is_empty());
        }
    }

    #[test]
    fn too_much_and_compressed_are_refused_by_the_prefix_alone() {
        let refused = |prefix: [u8; 5]| {
            let mut unframer = Unframer::default();
            unframer.push(Bytes::copy_from_slice(&prefix));
            unframer.pop().map_err(|status| status.code())
        };
        let [a, b, c, d] = (MESSAGE_BYTES_MAX as u32 + 1).to_be_bytes();
        assert_eq!(refused([0, a, b, c, d]), Err(Code::OutOfRange));
        let [a, b, c, d] = (MESSAGE_BYTES_MAX as u32).to_be_bytes();
        assert_eq!(refused([0, a, b, c, d]), Ok(None));
        assert_eq!(refused([1, 0, 0, 0, 0]), Err(Code::Internal));
    }

    #[test]
    fn headers_say_what_became_of_a_call() {
        let said = |headers: &[(&'static str, &'static str)]| {
            let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
            outcome(&headers.collect())
                .map(|said| said.map_err(|status| (status.code(), status.message().to_owned())))
        };
        assert_eq!(said(&[("grpc-message", "no status")]), None);
        assert_eq!(said(&[("grpc-status", "0")]), Some(Ok(())));
        let lost = Err((Code::NotFound, "key «k» 100% lost".to_owned()));
        let message = "key %C2%ABk%c2%bb 100% lost";
        assert_eq!(said(&[("grpc-status", "5"), ("grpc-message", message)]), Some(lost));
        assert_eq!(said(&[("grpc-status", "14")]), Some(Err((Code::Unavailable, String::new()))));
        assert_eq!(said(&[("grpc-status", "x")]), Some(Err((Code::Unknown, String::new()))));
    }

    #[test]
    fn what_is_no_percent_encoding_stays() {
        for (text, decoded) in [("", ""), ("%", "%"), ("%4", "%4"), ("%4g%41", "%4gA"), ("%+1", "%+1")] {
            assert_eq!(percent_decoded(text.as_bytes()), decoded);
        }
        assert_eq!(percent_decoded(b"%ff"), "\u{fffd}");
    }
}
