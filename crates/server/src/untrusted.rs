//! What this crate reads that it did not write, by name, for `crates/fuzz`: the readers themselves are nobody else's business.
//!
//! Each function hands bytes to the very reader that the program uses, says whether they were accepted, and panics if what was read has a form that does
//! not read as the same again.

use crate::cli::kv::{parse_compare, parse_operation};
use crate::cli::ring::{json, picture::Picture, svg, text, what_if::Change};
use crate::cli::top::answer::Used;
use crate::cli::{events::time, lease};
use crate::config::{ServeArgs, rules};
use crate::data_dir::{self, Owner};
use crate::events::journal::{Journal, records};
use crate::events::{Kind, Record as Event};
use crate::membership::{NodeRecord, ToldMember};
use crate::repair::Record as Repair;
use crate::runtime::frames::{frame, next_frame};
use crate::runtime::hello::{self, Identity};
use crate::services::events::EventsTold;
use crate::services::keyspaces::{Wanted, WantedSplit};
use crate::services::nodes::{Joining, WantedOrder, Welcome};
use crate::services::recovery::WantedRecovery;
use crate::services::ring::RingTold;
use bytes::BytesMut;
use futures_util::FutureExt;
use quorate_node::{ClusterOrder, PeerMessage};
use quorate_types::{ClusterId, Decode, Incarnation, NodeId};
use serde::{Serialize, de::DeserializeOwned};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Who is said hello to.
const HERE: Identity = Identity { cluster: ClusterId(7), node: NodeId(1), incarnation: Incarnation(9) };
/// The only other one who is known there.
const THERE: NodeId = NodeId(2);

/// What comes over a connection from a peer, behind its hello.
pub fn peer_frames(bytes: &[u8]) -> bool {
    let read = |bytes: &[u8]| {
        let mut buffer = BytesMut::from(bytes);
        let mut batches = Vec::new();
        while let Some(payload) = next_frame(&mut buffer).ok()? {
            batches.push(Vec::<PeerMessage>::from_bytes(payload).ok()?);
        }
        Some(batches)
    };
    let Some(batches) = read(bytes) else { return false };
    let mut again = Vec::new();
    batches.iter().for_each(|batch| frame(batch, &mut again));
    assert_eq!(read(&again).as_ref(), Some(&batches));
    !batches.is_empty()
}

/// These messages as they go over a connection.
pub fn framed(batch: &[PeerMessage]) -> Vec<u8> {
    let mut out = Vec::new();
    frame(batch, &mut out);
    out
}

/// How a connection from a peer begins.
pub fn hello(bytes: &[u8]) -> bool {
    let mut answer = Vec::new();
    let mut stream = tokio::io::join(bytes, &mut answer);
    let peers = Arc::new(BTreeMap::from([(THERE, "127.0.0.1:2380".to_owned())]));
    let (_sender, peers) = tokio::sync::watch::channel(peers);
    let gone = Arc::default();
    let heard = hello::welcome(&mut stream, &HERE, (&peers, &gone), None).now_or_never();
    let is_welcome = heard.expect("what is in memory need not be waited for").is_ok();
    assert_eq!(is_welcome, answer == [0, 0], "{answer:?}");
    is_welcome
}

/// A hello that is welcome.
pub fn good_hello() -> Vec<u8> {
    let words = [HERE.cluster.0, THERE.0, HERE.node.0, 5];
    let words = words.iter().flat_map(|word| word.to_le_bytes());
    b"QUORPEER".iter().copied().chain(hello::PROTOCOL.to_le_bytes()).chain(words).collect()
}

/// `IDENTITY` of a data directory, in one that may be written to.
pub fn identity(folder: &Path, bytes: &[u8]) -> bool {
    let read = || Some((data_dir::read_identity(folder).ok()?, data_dir::read_joined(folder).ok()?));
    put(folder, "IDENTITY", bytes);
    let Some(found) = read() else { return false };
    let ((owner, incarnation), joined) = &found;
    let written = data_dir::write_identity(folder, *owner, *incarnation, joined.as_ref());
    written.expect("the folder can be written to");
    assert_eq!(format!("{:?}", read()), format!("{:?}", Some(found)));
    true
}

/// An `IDENTITY`, of a node that joined a cluster of these members.
pub fn good_identity(folder: &Path, joined: Option<&quorate_node::Cluster>) -> Vec<u8> {
    let owner = Owner { cluster: HERE.cluster, node: HERE.node };
    data_dir::write_identity(folder, owner, HERE.incarnation, joined).expect("the folder can be written to");
    std::fs::read(folder.join("IDENTITY")).expect("it was just written")
}

/// `ADMITTED` and `MISSED` of a data directory.
pub fn standing(folder: &Path, bytes: &[u8]) -> bool {
    put(folder, "ADMITTED", bytes);
    put(folder, "MISSED", bytes);
    if let Ok(Some(by)) = data_dir::missed_by(folder) {
        data_dir::record_missed(folder, by).expect("the folder can be written to");
        assert_eq!(data_dir::missed_by(folder).ok(), Some(Some(by)));
    }
    let Ok(standing) = data_dir::read_standing(folder) else { return false };
    if let quorate_node::Standing::Admitted(lives) = &standing {
        data_dir::record_standing(folder, lives).expect("the folder can be written to");
        assert_eq!(data_dir::read_standing(folder).ok(), Some(standing));
    }
    true
}

/// `REPAIR` of a data directory.
pub fn repair(folder: &Path, bytes: &[u8]) -> bool {
    put(folder, "REPAIR", bytes);
    let Ok(mut record) = Repair::read(folder) else { return false };
    record.write(folder).expect("the folder can be written to");
    let again = Repair::read(folder).expect("it was just written");
    // What is not ordered needs no reason.
    if record.order.is_none() {
        record.why.clear();
    }
    assert_eq!(again, record);
    true
}

/// The journal of events, and that it can be written to whatever was in it.
pub fn events(folder: &Path, bytes: &[u8]) -> bool {
    let found = records(bytes);
    put(folder, "journal", bytes);
    let (journal, last) = Journal::open(folder, u64::MAX).expect("the folder can be written to");
    assert_eq!(last.as_ref(), found.last());
    journal.append([Event::new(1, Kind::Process, "it begins", "")]).expect("the folder can be written to");
    let newest = last.map_or(0, |last| last.n);
    let page = journal.read(newest, 0, usize::MAX).expect("the folder can be read");
    assert!(page.records.iter().any(|record| record.what == "it begins"), "after {newest}: {page:?}");
    std::fs::remove_file(folder.join("journal")).expect("it is there");
    !found.is_empty()
}

fn put(folder: &Path, name: &str, bytes: &[u8]) {
    std::fs::write(folder.join(name), bytes).expect("the folder can be written to");
}

/// Bodies of requests to the HTTP port, what nodes answer there, and rows in JSON.
pub fn json(bytes: &[u8]) -> bool {
    let mut is_accepted = false;
    if let Some(wanted) = told::<Wanted>(bytes) {
        // It may be refused.
        is_accepted |= rules(Some(&wanted.pin), Some(&wanted.spread)).is_ok();
    }
    is_accepted |= told::<WantedSplit>(bytes).is_some();
    is_accepted |= told::<WantedRecovery>(bytes).is_some();
    is_accepted |= told::<Joining>(bytes).is_some();
    is_accepted |= told::<WantedOrder>(bytes).map(ClusterOrder::from).is_some();
    is_accepted |= told::<Welcome>(bytes).is_some_and(|welcome| welcome.taken().is_ok());
    is_accepted |= told::<ToldMember>(bytes).is_some_and(|member| member.member().is_some());
    is_accepted |= told::<NodeRecord>(bytes).is_some();
    is_accepted |= told::<EventsTold>(bytes).is_some();
    if let Some(told) = told::<RingTold>(bytes) {
        for picture in Picture::of(&[told], None) {
            text::picture(&picture);
            svg::picture(&picture, None);
            json::picture(&picture, None);
        }
        is_accepted = true;
    }
    is_accepted
}

fn told<T: DeserializeOwned + Serialize>(bytes: &[u8]) -> Option<T> {
    let told: T = serde_json::from_slice(bytes).ok()?;
    let form = serde_json::to_value(&told).expect("it has no keys that are no text");
    let again: T = serde_json::from_value(form.clone()).unwrap_or_else(|error| panic!("{form}: {error}"));
    assert_eq!(serde_json::to_value(&again).ok(), Some(form));
    Some(told)
}

/// A file of settings.
pub fn settings(bytes: &[u8]) -> bool {
    let resolved = |text: &str| toml::from_str::<ServeArgs>(text).ok()?.resolve().ok();
    let Some(config) = std::str::from_utf8(bytes).ok().and_then(resolved) else { return false };
    let form = config.to_toml();
    let again = resolved(&form).unwrap_or_else(|| panic!("these settings are refused: {form}"));
    assert_eq!(again.to_toml(), form);
    true
}

/// Words of command lines, and a page of metrics.
pub fn words(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    Used::parse(text);
    let mut is_accepted = time::parse(text).is_ok();
    is_accepted |= lease::parse_id(text).is_ok();
    is_accepted |= parse_compare(text).is_ok();
    is_accepted |= parse_operation(text).is_ok();
    is_accepted |= text.parse::<Change>().is_ok();
    is_accepted
}
