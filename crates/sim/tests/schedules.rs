//! Schedules of whole hosts that random runs hardly ever meet, found in review: lost disks, former directories, a paused leader.
//! Links are as TCP: in order, and gone with either end.

#![allow(clippy::unwrap_used)] // A test; the lint's own exemption does not see helpers.

use quorate_node::{Cluster, Host, IfBehind, Options, PeerMessage, Standing, Ticket};
use quorate_storage::disk::MemoryDisk;
use quorate_storage::memory::MemoryEngine;
use quorate_storage::wal::{Wal, WalOptions};
use quorate_types::request::{PutLease, PutRequest};
use quorate_types::{Bytes, GroupId, Incarnation, KeyRange, KeyspaceId, Member, NodeId, Request};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

#[derive(Clone)]
struct Disk {
    log: MemoryDisk,
    engine: MemoryEngine,
    incarnation: u64,
    standing: Standing,
}

impl Disk {
    fn new(incarnation: u64) -> Self {
        Self {
            log: MemoryDisk::default(),
            engine: MemoryEngine::default(),
            incarnation,
            standing: Standing::New,
        }
    }
}

struct Running {
    host: Host<MemoryEngine>,
    wal: Wal<MemoryDisk>,
}

struct Net {
    size: u64,
    disks: BTreeMap<u64, Disk>,
    up: BTreeMap<u64, Running>,
    flying: VecDeque<(u64, u64, u64, PeerMessage)>,
    cut: BTreeSet<(u64, u64)>,
    frozen: BTreeSet<u64>,
    replies: BTreeMap<u64, bool>,
    grants: BTreeMap<u64, Option<u64>>,
    lease_read: bool,
    ticket: u64,
}

impl Net {
    fn new(size: u64) -> Self {
        let disks = (1..=size).map(|id| (id, Disk::new(id))).collect();
        Self {
            size,
            disks,
            up: BTreeMap::new(),
            flying: VecDeque::new(),
            cut: BTreeSet::new(),
            frozen: BTreeSet::new(),
            replies: BTreeMap::new(),
            grants: BTreeMap::new(),
            lease_read: false,
            ticket: 0,
        }
    }

    /// All nodes up for long enough that one leads.
    fn started(size: u64, lease_read: bool) -> Self {
        let mut net = Self { lease_read, ..Self::new(size) };
        for id in 1..=size {
            net.start(id);
        }
        net.ticks(200);
        net
    }

    /// Whether it leads, as it believes.
    fn serves(&self, id: u64) -> bool {
        let status = self.up[&id].host.status();
        status.iter().any(|status| status.group == GroupId::FIRST && status.is_serving)
    }

    fn start(&mut self, id: u64) {
        let disk = &self.disks[&id];
        let (wal, recovered, _) =
            Wal::open(disk.log.clone(), id, WalOptions { segment_bytes: 32 << 10 }).unwrap();
        let mut options = Options::new(NodeId(id), id * 7 + disk.incarnation);
        options.incarnation = Incarnation(disk.incarnation);
        options.lease_read = self.lease_read;
        let members = (1..=self.size).map(|id| Member::new(NodeId(id), id.to_string(), ""));
        let cluster = Cluster::of_founders(members.collect());
        let host =
            Host::new(options, disk.standing.clone(), disk.engine.clone(), cluster, recovered).unwrap();
        self.up.insert(id, Running { host, wal });
    }

    fn stop(&mut self, id: u64) {
        self.up.remove(&id);
        // As TCP does: what was under way from or to it is gone.
        self.flying.retain(|(from, _, to, _)| *from != id && *to != id);
        for other in self.up.values_mut() {
            other.host.peer_lost(NodeId(id));
        }
    }

    fn lose(&mut self, id: u64) {
        self.stop(id);
        let incarnation = self.disks[&id].incarnation + 10;
        self.disks.insert(id, Disk::new(incarnation));
    }

    fn settle(&mut self, id: u64) {
        if self.frozen.contains(&id) {
            return;
        }
        let Some(running) = self.up.get_mut(&id) else { return };
        loop {
            let effects = running.host.take().unwrap();
            let mut again = false;
            let disk = self.disks.get_mut(&id).unwrap();
            for (to, message) in effects.send {
                self.flying.push_back((id, disk.incarnation, to.0, message));
            }
            if let Some(standing) = effects.standing {
                disk.standing = standing;
                running.host.standing_recorded();
                again = true;
            }
            if let Some((write, parts)) = effects.persist {
                running.wal.append(&parts).unwrap();
                running.wal.sync().unwrap();
                running.host.persisted(write);
                again = true;
            }
            if effects.flush {
                quorate_mvcc::engine::Engine::flush(&disk.engine).unwrap();
                running.host.flushed();
                again = true;
            }
            for (ticket, reply) in effects.replies {
                self.replies.insert(ticket.0, reply.is_ok());
            }
            for (ticket, grant) in effects.grants {
                self.grants.insert(ticket.0, grant.ok().map(|grant| grant.revision.0));
            }
            if !again {
                break;
            }
        }
    }

    fn deliver(&mut self) {
        while let Some((from, incarnation, to, message)) = self.flying.pop_front() {
            if self.cut.contains(&(from, to)) || self.frozen.contains(&to) {
                continue;
            }
            let Some(running) = self.up.get_mut(&to) else { continue };
            running.host.receive(NodeId(from), Incarnation(incarnation), message).unwrap();
            self.settle(to);
        }
    }

    fn ticks(&mut self, count: usize) {
        for _ in 0..count {
            for id in self.up.keys().copied().collect::<Vec<_>>() {
                if self.frozen.contains(&id) {
                    continue;
                }
                self.up.get_mut(&id).unwrap().host.tick().unwrap();
                self.settle(id);
            }
            self.deliver();
        }
    }

    fn put(&mut self, at: u64, key: &'static str, value: &'static str) -> u64 {
        self.put_or_keep(at, key, Some(value))
    }

    /// Without a value, the stored one is kept, and there must be one.
    fn put_or_keep(&mut self, at: u64, key: &'static str, value: Option<&'static str>) -> u64 {
        self.ticket += 1;
        let request = Request::Put(PutRequest {
            key: Bytes::from_static(key.as_bytes()),
            value: value.map(|value| Bytes::from_static(value.as_bytes())),
            lease: PutLease::Detach,
            previous: false,
        });
        self.up
            .get_mut(&at)
            .unwrap()
            .host
            .request(Ticket(self.ticket), KeyspaceId::DEFAULT, request)
            .unwrap();
        self.settle(at);
        self.deliver();
        self.ticket
    }

    /// Cuts a node off, both ways; its connections stay.
    fn isolate(&mut self, id: u64) {
        for other in 1..=self.size {
            self.cut.insert((id, other));
            self.cut.insert((other, id));
        }
    }

    fn is_acked(&self, ticket: u64) -> bool {
        self.replies.get(&ticket) == Some(&true)
    }

    fn admitted(&self) -> Vec<(u64, bool)> {
        self.up.iter().map(|(id, running)| (*id, running.host.is_admitted())).collect()
    }

    fn leader(&self) -> Option<u64> {
        self.up.keys().copied().find(|id| self.serves(*id))
    }

    fn revision(&self, id: u64) -> u64 {
        self.up[&id].host.reader(KeyspaceId::DEFAULT).unwrap().revision().0
    }
}

/// A member that has not been admitted yet is no reason for another to doubt it, or nobody would be left to vote.
#[test]
fn a_disk_is_lost_while_a_founder_was_never_admitted() {
    for (size, late) in [(3, vec![2]), (5, vec![2, 5])] {
        let mut net = Net::new(size);
        for id in 1..=net.size {
            net.start(id);
        }
        // Block the late nodes' own questions only: they answer those of others.
        for _ in 0..30 {
            for id in 1..=net.size {
                net.up.get_mut(&id).unwrap().host.tick().unwrap();
                net.settle(id);
            }
            net.flying.retain(|(from, _, _, message)| {
                !(late.contains(from) && matches!(message, PeerMessage::AdmissionAsk { .. }))
            });
            while let Some((from, incarnation, to, message)) = net.flying.pop_front() {
                if late.contains(&from) && matches!(message, PeerMessage::AdmissionAsk { .. }) {
                    continue;
                }
                net.up
                    .get_mut(&to)
                    .unwrap()
                    .host
                    .receive(NodeId(from), Incarnation(incarnation), message)
                    .unwrap();
                net.settle(to);
            }
        }
        for late in &late {
            net.stop(*late);
        }
        net.ticks(200);
        let leader = net.leader().expect("the others lead");
        let put = net.put(leader, "a", "1");
        net.ticks(50);
        assert!(net.is_acked(put));
        net.lose(3);
        net.ticks(100);
        net.start(3);
        // The late ones come back with their directories. Their first questions meet a connection that is not there yet.
        for late in &late {
            net.start(*late);
        }
        for _ in 0..10 {
            for id in net.up.keys().copied().collect::<Vec<_>>() {
                net.up.get_mut(&id).unwrap().host.tick().unwrap();
                net.settle(id);
            }
            net.flying.retain(|(from, _, _, message)| {
                !(late.contains(from) && matches!(message, PeerMessage::AdmissionAsk { .. }))
            });
            net.deliver();
        }
        net.ticks(20_000);
        assert!(
            net.leader().is_some() && net.admitted().iter().all(|(_, is)| *is),
            "no leader for 400 s, with {} nodes",
            net.size
        );
    }
}

/// The process of a leader is paused: its ticks stop, and one tick makes up for all of them.
#[test]
fn lease_read_after_a_pause() {
    let mut net = Net::started(3, true);
    let old = net.leader().unwrap();
    let put = net.put(old, "a", "1");
    net.ticks(6);
    assert!(net.is_acked(put));
    net.frozen.insert(old);
    net.ticks(200);
    let new = (1..=3).find(|id| *id != old && net.serves(*id)).unwrap();
    let put = net.put(new, "a", "2");
    net.ticks(5);
    assert!(net.is_acked(put));
    // It goes on. A client's read is the first thing its worker finds; then it ticks once, as `Worker::run` does.
    net.frozen.clear();
    net.ticket += 1;
    let ticket = net.ticket;
    let host = &mut net.up.get_mut(&old).unwrap().host;
    host.slept();
    host.barrier(Ticket(ticket), KeyspaceId::DEFAULT, vec![KeyRange::all()], IfBehind::Wait).unwrap();
    host.tick().unwrap();
    net.settle(old);
    assert!(
        net.grants.get(&ticket).is_none_or(|granted| *granted == Some(net.revision(new))),
        "a stale read"
    );
}

/// The old directory of a node is started again after its new one had taken part, and the peers have restarted since.
#[test]
fn the_old_directory_comes_back() {
    let mut net = Net::started(3, false);
    let leader = net.leader().unwrap();
    let put = net.put(leader, "a", "1");
    net.ticks(20);
    assert!(net.is_acked(put));
    let lost = (1..=3).find(|id| *id != leader).unwrap();
    let other = (1..=3).find(|id| *id != leader && *id != lost).unwrap();
    let old = net.disks[&lost].clone();
    net.lose(lost);
    net.start(lost);
    net.ticks(400);
    assert!(net.admitted().iter().all(|(_, is)| *is));
    // `other` is away; the leader and the new life acknowledge a write.
    let leader = net.leader().unwrap();
    assert_ne!(leader, lost);
    net.stop(other);
    let put = net.put(leader, "a", "2");
    net.ticks(20);
    assert!(net.is_acked(put));
    let newest = net.revision(leader);
    // Back to the old directory; `other` restarts; the leader is away for a while.
    net.stop(lost);
    net.stop(leader);
    net.disks.insert(lost, old);
    net.start(lost);
    net.start(other);
    net.ticks(400);
    let now = net.leader().map(|leader| net.revision(leader));
    assert!(
        now.is_none_or(|now| now >= newest),
        "an acknowledged write is gone: revision {now:?} after {newest}"
    );
}

/// A leader that was deposed without noticing must not say that a key is missing which its successor has acknowledged.
#[test]
fn a_deposed_leader_refuses_nothing_by_what_it_believes() {
    let mut net = Net::started(3, false);
    let old = net.leader().unwrap();
    net.isolate(old);
    // Until the others have a leader; the old one has not missed its quorum yet, or has just.
    let new = loop {
        for id in (1..=3).filter(|id| *id != old) {
            net.up.get_mut(&id).unwrap().host.peer_lost(NodeId(old));
            net.settle(id);
        }
        net.ticks(1);
        if let Some(new) = (1..=3).find(|id| *id != old && net.serves(*id)) {
            break new;
        }
    };
    let put = net.put(new, "a", "1");
    assert!(net.is_acked(put));
    assert!(net.serves(old), "as it believes");
    let keep = net.put_or_keep(old, "a", None);
    net.ticks(1);
    assert_eq!(net.replies.get(&keep), None, "«no such key», of a key that is there");
    net.cut.clear();
    net.ticks(300);
    assert!(net.is_acked(keep), "carried out by whoever leads");
}

/// A write on its way to a leader that is paused is answered when another leads, not when the client's time is up.
#[test]
fn a_write_forwarded_to_a_paused_leader_is_answered_when_another_leads() {
    let mut net = Net::started(3, false);
    let leader = net.leader().unwrap();
    let gateway = if leader == 1 { 2 } else { 1 };
    net.frozen.insert(leader);
    let put = net.put(gateway, "a", "1");
    // Two election timeouts and a little, of six seconds that it may take.
    net.ticks(100);
    assert_eq!(net.replies.get(&put), Some(&false), "its outcome is unknown");
    let put = net.put(gateway, "a", "1");
    net.ticks(20);
    assert!(net.is_acked(put));
}

/// One full disk of three stops nobody: who led there hands over to one that has space.
#[test]
fn a_leader_that_is_short_of_space_hands_over_to_one_that_is_not() {
    let mut net = Net::started(3, false);
    let leader = net.leader().unwrap();
    net.up.get_mut(&leader).unwrap().host.set_no_space(true);
    net.ticks(100);
    let next = net.leader().unwrap();
    assert_ne!(next, leader);
    let put = net.put(leader, "a", "1");
    net.ticks(10);
    assert!(net.is_acked(put), "also where it is asked of the one without");
    // Nobody is left with a majority that has space, so it stays where it is.
    net.up.get_mut(&next).unwrap().host.set_no_space(true);
    net.ticks(200);
    let stays = net.leader().unwrap();
    let put = net.put(stays, "a", "2");
    assert_eq!(net.replies.get(&put), Some(&false));
    net.ticks(200);
    assert_eq!(net.leader().unwrap(), stays);
}

/// Followers whose disks run full are not written to death: the leader refuses while they are a majority with whoever else is.
#[test]
fn writes_are_refused_while_no_quorum_has_space() {
    let mut net = Net::started(3, false);
    let leader = net.leader().unwrap();
    let followers: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    net.up.get_mut(&followers[0]).unwrap().host.set_no_space(true);
    net.ticks(60);
    let put = net.put(leader, "a", "1");
    assert!(net.is_acked(put), "a majority has space");
    net.up.get_mut(&followers[1]).unwrap().host.set_no_space(true);
    net.ticks(60);
    let put = net.put(leader, "a", "2");
    assert_eq!(net.replies.get(&put), Some(&false), "no majority has");
    net.up.get_mut(&followers[0]).unwrap().host.set_no_space(false);
    net.ticks(250);
    let put = net.put(leader, "a", "3");
    net.ticks(5);
    assert!(net.is_acked(put), "a majority has again");
}
