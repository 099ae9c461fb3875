//! One call over a connection in memory.

use super::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;
use tokio::io::DuplexStream;

#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// The two ends of a call whose answer has begun.
struct Call {
    answer: SendStream<Bytes>,
    server: Connection<DuplexStream, Bytes>,
    /// The client's.
    request: SendStream<Bytes>,
}

fn with_call(test: impl AsyncFnOnce(&mut Call)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (near, far) = tokio::io::duplex(1 << 20);
        let (server, client) = tokio::join!(h2::server::handshake(near), h2::client::handshake(far));
        let (mut server, (mut client, connection)) = (server.unwrap(), client.unwrap());
        tokio::spawn(connection);
        let (_awaited, request) = client.send_request(Request::new(()), false).unwrap();
        let (_asked, mut respond) = server.accept().await.unwrap().unwrap();
        let answer = respond.send_response(Response::new(()), false).unwrap();
        test(&mut Call { answer, server, request }).await;
    });
}

/// A stream of watches waits for a reset while it waits for events. It was woken by each event that it sent, and polled once more for it; and two that
/// had woken themselves ended the round of all streams of the connection, so that two events went out in a write.
#[test]
fn who_waits_for_a_reset_is_not_woken_by_what_it_sends() {
    with_call(async |call| {
        let woken = Arc::new(Woken::default());
        for _ in 0..3 {
            let waker = woken.clone().into();
            assert!(call.answer.poll_reset(&mut Context::from_waker(&waker)).is_pending());
            let sent = pin!(send(&mut call.answer, Bytes::from_static(b"event")));
            let sent = sent.poll(&mut Context::from_waker(Waker::noop()));
            assert!(matches!(sent, Poll::Ready(Ok(()))), "{sent:?}");
        }
        assert_eq!(woken.0.load(Ordering::Relaxed), 0);
    });
}

#[test]
fn nothing_is_sent_to_who_has_taken_the_call_back() {
    with_call(async |call| {
        call.request.send_reset(Reason::CANCEL);
        let reset = tokio::select! {
            reset = poll_fn(|context| call.answer.poll_reset(context)) => reset.unwrap(),
            _ = call.server.accept() => panic!("the connection ended"),
        };
        assert_eq!(reset, Reason::CANCEL);
        assert!(send(&mut call.answer, Bytes::from_static(b"event")).await.is_err());
    });
}
