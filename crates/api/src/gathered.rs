//! A stream over which the HTTP/2 library gathers small frames.
//!
//! h2 asks a stream, when the connection begins, whether it writes several buffers at once. If so it copies next to nothing: what has more than 256 bytes
//! goes out by itself, each with a call to the system of its own. If not, it copies frames of up to a kibibyte behind each other; but then a larger frame takes two writes, one for
//! its head. So the first answer here is no, and later ones are true. Should h2 come to ask otherwise, only speed is lost.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The stream; see the [module](self).
pub struct Gathered<S> {
    stream: S,
    was_asked: AtomicBool,
}

impl<S> Gathered<S> {
    /// Over `stream`, of which nothing was asked yet.
    pub fn new(stream: S) -> Self {
        Self { stream, was_asked: AtomicBool::new(false) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gathered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathered<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.was_asked.swap(true, Ordering::Relaxed) && self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
