//! Whatever is said on the client port as HTTP/2: the one who says it is told so or hung up on, and the others are served meanwhile.

#![allow(clippy::unwrap_used)] // A test; the lint's own exemption does not see helpers.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use support::{Cluster, PATIENCE};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

// Kinds of frames and their flags (RFC 9113, 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const ACK: u8 = 1;

/// Nobody else's ping.
const OURS: [u8; 8] = *b"are you?";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A header as it stands in a frame, not compressed (RFC 7541, 6.2.2).
fn field(name: &str, value: &[u8]) -> Vec<u8> {
    let mut field = vec![0];
    for text in [name.as_bytes(), value] {
        let Some(mut more) = text.len().checked_sub(127) else {
            field.push(text.len() as u8);
            field.extend(text);
            continue;
        };
        field.push(127);
        while more >= 128 {
            field.push((more % 128) as u8 | 128);
            more /= 128;
        }
        field.push(more as u8);
        field.extend(text);
    }
    field
}

fn fields(fields: &[(&str, &[u8])]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| field(name, value)).collect()
}

/// The headers of a call to this path.
fn head(path: &[u8]) -> Vec<u8> {
    fields(&[
        (":method", b"POST"),
        (":scheme", b"http"),
        (":path", path),
        (":authority", b"node"),
        ("content-type", b"application/grpc"),
        ("te", b"trailers"),
    ])
}

fn put_head() -> Vec<u8> {
    head(b"/etcdserverpb.KV/Put")
}

/// How a connection went on.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// It answers a ping that came after everything else.
    GoesOn,
    /// The node says why it hangs up, or says nothing.
    Ends,
}

/// Says this and a ping after it, on a connection that is new, and listens until the ping is answered or nobody is there.
fn say(address: &str, bytes: &[u8]) -> Outcome {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    let begin = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    // The other side may hang up before the end.
    let _ = stream.write_all(&[&begin, bytes, &frame(PING, 0, 0, &OURS)].concat());
    loop {
        let mut head = [0; 9];
        if stream.read_exact(&mut head).is_err() {
            return Outcome::Ends;
        }
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        if stream.read_exact(&mut payload).is_err() {
            return Outcome::Ends;
        }
        match head[3] {
            PING if head[4] == ACK && payload == OURS => return Outcome::GoesOn,
            GOAWAY => return Outcome::Ends,
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_are_wrong_end_a_call_or_a_connection_and_no_more() {
    use Outcome::{Ends, GoesOn};
    let mut cluster = Cluster::started(1).await;
    let node = &mut cluster.nodes[0];
    let address = node.client.clone();
    node.only().put("before", "v").await;
    let check = |what: &str, frames: &[Vec<u8>], outcome: Outcome| {
        assert_eq!(say(&address, &frames.concat()), outcome, "{what}");
    };
    let begin = || frame(HEADERS, END_HEADERS, 1, &put_head());
    let small = |value: &[u8]| [&[0, 0, 0, 0, value.len() as u8], value].concat();
    let setting = |id: u16, value: u32| {
        frame(SETTINGS, 0, 0, &[id.to_be_bytes().as_slice(), &value.to_be_bytes()].concat())
    };

    // Not frames at all.
    check("a frame of 16 MiB", &[vec![0xff; 4096]], Ends);
    check("half a frame, then a ping within it", &[frame(DATA, 0, 1, b"12345678")[..5].to_vec()], Ends);
    // On a stream that cannot have it.
    check("data of no call", &[frame(DATA, 0, 0, b"x")], Ends);
    check("data of a call not begun", &[frame(DATA, 0, 1, b"x")], Ends);
    check("headers of the connection", &[frame(HEADERS, END_HEADERS, 0, &put_head())], Ends);
    check("a call with a server's number", &[frame(HEADERS, END_HEADERS, 2, &put_head())], Ends);
    check("numbers that go down", &[frame(HEADERS, END_HEADERS, 3, &put_head()), begin()], Ends);
    check("a reset of no call", &[frame(RST_STREAM, 0, 0, &[0; 4])], Ends);
    check("a push", &[begin(), frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2])], Ends);
    // Of a wrong size, or with a wrong value.
    check("a short ping", &[frame(PING, 0, 0, b"x")], Ends);
    check("half a setting", &[frame(SETTINGS, 0, 0, b"abc")], Ends);
    check("a window beyond all", &[setting(4, u32::MAX)], Ends);
    check("frames that are too small", &[setting(5, 1)], Ends);
    check("room beyond all", &vec![frame(WINDOW_UPDATE, 0, 0, &0x7fff_ffff_u32.to_be_bytes()); 2], Ends);
    check("no room", &[begin(), frame(WINDOW_UPDATE, 0, 1, &[0; 4])], Ends);
    check("padding longer than its frame", &[begin(), frame(DATA, PADDED, 1, &[200, 1, 2])], Ends);
    // Headers that do not end, or are none.
    check("headers within headers", &[frame(HEADERS, 0, 1, &put_head()), begin()], Ends);
    check("more of no headers", &[frame(CONTINUATION, END_HEADERS, 1, &put_head())], Ends);
    let capital = [put_head(), field("Loud", b"x")].concat();
    check("a capital letter", &[frame(HEADERS, END_HEADERS, 1, &capital)], Ends);
    check("a path that is no text", &[frame(HEADERS, END_HEADERS, 1, &head(b"/\xff\xfe"))], Ends);
    for method in [&b""[..], b"P\0ST"] {
        let named = fields(&[(":method", method), (":path", b"/health")]);
        check("a method that is none", &[frame(HEADERS, END_HEADERS, 1, &named)], Ends);
    }
    check("noise for headers", &[frame(HEADERS, END_HEADERS, 1, &[0xff; 64])], Ends);
    let endless = vec![frame(CONTINUATION, 0, 1, &field("x", &[b'x'; 10_000])); 4_000];
    check("headers without end", &[vec![frame(HEADERS, 0, 1, &put_head())], endless].concat(), Ends);
    let one = |number: u32| {
        let stream = 2 * number + 1;
        [frame(HEADERS, END_HEADERS, stream, &put_head()), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])]
    };
    // It is hung up on if enough of them come in one read.
    say(&address, &(0..20_000).flat_map(one).collect::<Vec<_>>().concat());

    // What is wrong with one call only.
    check("no path", &[frame(HEADERS, END_HEADERS, 1, &fields(&[(":method", b"POST")]))], GoesOn);
    check("nothing", &[frame(HEADERS, END_HEADERS, 1, &[])], GoesOn);
    let large = [put_head(), field("x-large", &[b'x'; 12_000]), field("x-large", &[b'y'; 300])].concat();
    check("large headers", &[frame(HEADERS, END_HEADERS, 1, &large)], GoesOn);
    let mut pieces =
        vec![frame(HEADERS, 0, 1, &put_head()), frame(CONTINUATION, 0, 1, &field("x", &[b'x'; 12_000]))];
    pieces.push(frame(CONTINUATION, END_HEADERS, 1, &field("y", &[b'x'; 12_000])));
    check("headers beyond the limit", &pieces, GoesOn);
    let behind = [put_head(), field(":path", b"/again")].concat();
    check("a path behind", &[frame(HEADERS, END_HEADERS, 1, &behind)], GoesOn);
    for path in [&b"*"[..], b"", b"no/slash", b"/%ff%00", b"//", b"/{x}", b"/etcdserverpb.KV/", b"/#"] {
        let what = format!("path {}", path.escape_ascii());
        check(&what, &[frame(HEADERS, END_HEADERS | END_STREAM, 1, &head(path))], GoesOn);
    }
    let methods: [&[u8]; 4] = [b"CONNECT", b"OPTIONS", b"GET", b"BREW"];
    for method in methods {
        for path in [&b"*"[..], b"/etcdserverpb.KV/Put", b"/health"] {
            let named = [(":method", method), (":scheme", b"http"), (":path", path), (":authority", b"node")];
            let what = format!("{} {}", method.escape_ascii(), path.escape_ascii());
            check(&what, &[frame(HEADERS, END_HEADERS | END_STREAM, 1, &fields(&named))], GoesOn);
        }
        let named = fields(&[(":method", method), (":authority", b"node")]);
        check("a method of nothing", &[frame(HEADERS, END_HEADERS, 1, &named)], GoesOn);
    }
    let counted = [put_head(), field("content-length", b"3")].concat();
    check(
        "more than was said",
        &[frame(HEADERS, END_HEADERS, 1, &counted), frame(DATA, END_STREAM, 1, &small(b"x"))],
        GoesOn,
    );
    check("what nobody knows", &[frame(0xaa, 0xff, 7, b"x"), setting(0xaaaa, 7)], GoesOn);
    check("a call that goes before itself", &[begin(), frame(PRIORITY, 0, 1, &[0, 0, 0, 1, 0])], GoesOn);

    // Messages that are none, of calls of every kind.
    let paths = ["KV/Put", "KV/Range", "KV/Txn", "Watch/Watch", "Lease/LeaseKeepAlive", "Maintenance/Status"];
    let bodies: [&[u8]; 7] = [
        b"",
        &[0, 0xff, 0xff, 0xff, 0xff, 1, 2, 3],
        &[0, 0, 0, 1, 0, 1, 2, 3],
        &[0, 0, 0, 0, 3, 0xff, 0xff, 0xff],
        &[0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 1],
        &[1, 0, 0, 0, 1, 1],
        &[7; 100],
    ];
    for (path, body) in paths.iter().flat_map(|path| bodies.map(|body| (path, body))) {
        let path = format!("/etcdserverpb.{path}");
        let begin = || frame(HEADERS, END_HEADERS, 1, &head(path.as_bytes()));
        check(&path, &[begin(), frame(DATA, END_STREAM, 1, body)], GoesOn);
        check(&path, &[begin(), frame(DATA, 0, 1, body), frame(RST_STREAM, 0, 1, &[0, 0, 0, 8])], GoesOn);
        let trailers = frame(HEADERS, END_HEADERS | END_STREAM, 1, &field("x-trailer", b"x"));
        check(&path, &[begin(), frame(DATA, 0, 1, body), trailers], GoesOn);
        let padded = [&[3], body, &[0; 3]].concat();
        check(&path, &[begin(), frame(DATA, PADDED | END_STREAM, 1, &padded)], GoesOn);
        // Cut off with the call.
        check(&path, &[begin(), frame(DATA, 0, 1, body), frame(DATA, 0, 0, b"x")], Ends);
    }
    check(
        "a message that ends with trailers",
        &[begin(), frame(HEADERS, END_HEADERS, 1, &field("x", b"x"))],
        GoesOn,
    );

    assert!(node.is_running());
    assert_eq!(node.only().get("before").await.as_deref(), Some("v"));
    node.only().put("after", "v").await;
    assert!(!node.log().contains("panicked"), "{}", node.log());
}

/// While connections are open that stopped in the middle of something, others are served.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_of_anything_keeps_nobody_waiting() {
    let mut cluster = Cluster::started(1).await;
    let node = &mut cluster.nodes[0];
    let begin = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    let call = frame(HEADERS, END_HEADERS, 1, &put_head());
    let halves: [&[u8]; 7] = [
        b"P",
        &PREFACE[..10],
        PREFACE,
        &begin,
        &[&begin, &call[..20]].concat(),
        &[&begin, &frame(HEADERS, 0, 1, &put_head())[..]].concat(),
        &[&begin, &call[..], &frame(DATA, 0, 1, &[0, 0, 1, 0, 0, 1, 2])].concat(),
    ];
    let mut open = Vec::new();
    for half in halves.iter().cycle().take(100) {
        let mut stream = TcpStream::connect(&node.client).unwrap();
        stream.write_all(half).unwrap();
        open.push(stream);
    }
    for number in 0..20 {
        node.only().put(&format!("k{number}"), "v").await;
    }
    drop(open);
    assert_eq!(node.only().get("k19").await.as_deref(), Some("v"));
    assert!(node.is_running());
    assert!(!node.log().contains("panicked"), "{}", node.log());
}
