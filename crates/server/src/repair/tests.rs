//! Orders: to whom they are given, how often, and what a start does.

use super::*;
use crate::data_dir::{DataDir, Owner};
use quorate_mvcc::engine::{Batch, Read, Table};
use quorate_node::{Life, Lives};
use quorate_types::{
    ClusterId, HardState, Incarnation, KeyspaceId, LogWrite, Malformed, NodeId, PartitionId,
};

fn damage() -> Fault {
    Fault::new("reading a row", Malformed("its seal"))
}

fn lives() -> Lives {
    Lives::from([(NodeId(2), Life { incarnation: Incarnation(2), is_original: true })])
}

/// A directory of a node that takes part, with a log that names these groups and a store with a row.
fn used(groups: &[GroupId]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let owner = Owner { cluster: ClusterId(7), node: NodeId(1) };
    drop(DataDir::open(dir.path(), owner).unwrap());
    data_dir::record_standing(dir.path(), &lives()).unwrap();
    let disk = FileDisk::open(&dir.path().join("log")).unwrap();
    let (mut wal, _, _) = Wal::open(disk, owner.log_identity(), WalOptions::default()).unwrap();
    let state = LogWrite { hard_state: Some(HardState::default()), ..LogWrite::default() };
    let writes: Vec<(GroupId, LogWrite)> = groups.iter().map(|group| (*group, state.clone())).collect();
    wal.append(&writes).unwrap();
    wal.sync().unwrap();
    let engine = DiskEngine::open(&dir.path().join("store"), CACHE_BYTES).unwrap();
    let mut batch = Batch::default();
    batch.put(Table::Version, vec![1], vec![2]);
    engine.write(batch).unwrap();
    engine.flush().unwrap();
    dir
}

#[test]
fn what_is_put_aside_is_there_and_what_takes_its_place_waits_for_every_group() {
    let other = GroupId { keyspace: KeyspaceId::DEFAULT, partition: PartitionId(3) };
    let groups = [GroupId::META, other];
    let dir = used(&groups);
    assert!(order(dir.path(), &damage(), Order::PutAside));
    let outcome = carry_out(dir.path(), true).unwrap();
    assert!(
        outcome.was_put_aside.is_some_and(|aside| aside.why.contains("its seal") && !aside.has_forgotten)
    );
    assert_eq!(aside(dir.path()), [dir.path().join("store.damaged")]);
    let engine = DiskEngine::open(&dir.path().join("store"), CACHE_BYTES).unwrap();
    assert_eq!(engine.get(Table::Version, &[1]).unwrap(), None);
    assert!(groups.iter().all(|group| Partition::is_incomplete(&engine, *group).unwrap()));
    drop(engine);
    let engine = DiskEngine::open(&aside(dir.path())[0], CACHE_BYTES).unwrap();
    assert!(engine.get(Table::Version, &[1]).unwrap().is_some());
    assert_eq!(Record::read(dir.path()).unwrap().groups.len(), 2);
    // Once is enough, until there is another order; then nothing is written over.
    assert!(carry_out(dir.path(), true).unwrap().was_put_aside.is_none());
    assert!(order(dir.path(), &damage(), Order::PutAside));
    carry_out(dir.path(), true).unwrap();
    assert_eq!(aside(dir.path()).len(), 2);
}

#[test]
fn an_order_to_leave_stands_until_the_store_is_put_aside() {
    let dir = used(&[GroupId::META]);
    assert!(order(dir.path(), &damage(), Order::Leave));
    for _ in 0..2 {
        assert!(carry_out(dir.path(), true).unwrap().is_to_be_left.is_some());
        assert!(aside(dir.path()).is_empty());
    }
    assert!(order(dir.path(), &damage(), Order::PutAside));
    assert!(carry_out(dir.path(), true).unwrap().was_put_aside.is_some());
    assert!(carry_out(dir.path(), true).unwrap().is_to_be_left.is_none());
    // By whomever: quorate doctor does it without an order.
    assert!(order(dir.path(), &damage(), Order::Leave));
    put_aside(dir.path()).unwrap();
    assert!(carry_out(dir.path(), true).unwrap().is_to_be_left.is_none());
}

#[test]
fn a_store_that_gave_up_by_itself_is_read_once() {
    let dir = used(&[GroupId::META]);
    let fault = Fault::new("writing to the store", crate::engine::GivenUp);
    assert!(order(dir.path(), &fault, Order::Leave));
    assert!(carry_out(dir.path(), true).unwrap().is_to_be_checked);
    assert!(!carry_out(dir.path(), true).unwrap().is_to_be_checked);
}

#[test]
fn other_faults_lonely_nodes_and_disks_that_go_on_spoiling_are_left_alone() {
    let dir = used(&[GroupId::META]);
    let other = Fault::new("writing", std::io::Error::other("no space"));
    assert!(!order(dir.path(), &other, Order::PutAside));
    for _ in 0..TIMES_MAX {
        assert!(order(dir.path(), &damage(), Order::Leave));
    }
    assert!(!order(dir.path(), &damage(), Order::Leave));
    // A day later.
    let mut record = Record::read(dir.path()).unwrap();
    record.times.iter_mut().for_each(|time| *time -= DAY);
    record.write(dir.path()).unwrap();
    assert!(order(dir.path(), &damage(), Order::Leave));

    let lonely = used(&[GroupId::META]);
    data_dir::record_standing(lonely.path(), &Lives::new()).unwrap();
    assert!(!order(lonely.path(), &damage(), Order::PutAside));
    assert!(put_aside(lonely.path()).unwrap_err().contains("cluster of its own"));
    std::fs::remove_file(lonely.path().join("ADMITTED")).unwrap();
    assert!(!order(lonely.path(), &damage(), Order::PutAside));
}

#[test]
fn without_its_log_a_store_is_not_given_up() {
    let dir = used(&[GroupId::META]);
    std::fs::remove_dir_all(dir.path().join("log")).unwrap();
    std::fs::create_dir(dir.path().join("log")).unwrap();
    assert!(put_aside(dir.path()).unwrap_err().contains("there is no log"));
    assert!(dir.path().join("store").exists() && aside(dir.path()).is_empty());
}

/// Flips a bit of what the log's first frame held.
fn damage_log(dir: &Path) {
    let file = std::fs::read_dir(dir.join("log")).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&file).unwrap();
    // Behind the headers of segment and frame (docs/wal.md).
    bytes[40 + 24] ^= 1;
    std::fs::write(&file, bytes).unwrap();
}

/// Later frames say that the first was durable, so damage in that is no unfinished write.
fn with_frames(groups: &[GroupId]) -> tempfile::TempDir {
    let dir = used(groups);
    let (owner, _) = data_dir::read_identity(dir.path()).unwrap();
    let disk = FileDisk::open(&dir.path().join("log")).unwrap();
    let (mut wal, _, _) = Wal::open(disk, owner.log_identity(), WalOptions::default()).unwrap();
    let state = LogWrite { hard_state: Some(HardState::default()), ..LogWrite::default() };
    for _ in 0..2 {
        wal.append(&[(groups[0], state.clone())]).unwrap();
        wal.sync().unwrap();
    }
    drop(wal);
    dir
}

#[test]
fn whose_log_is_damaged_forgets_it_and_begins_a_new_life() {
    // Ordered for the log, or for the store, whose repair would need the log.
    for ordered in [Order::Forget, Order::PutAside] {
        let dir = with_frames(&[GroupId::META]);
        damage_log(dir.path());
        let (owner, before) = data_dir::read_identity(dir.path()).unwrap();
        assert!(order(dir.path(), &damage(), ordered));
        let outcome = carry_out(dir.path(), true).unwrap();
        assert!(outcome.has_forgotten && outcome.was_put_aside.is_some_and(|aside| aside.has_forgotten));
        let (same, now) = data_dir::read_identity(dir.path()).unwrap();
        assert!(same == owner && now != before);
        assert_eq!(data_dir::read_standing(dir.path()).unwrap(), Standing::New);
        assert!(dir.path().join(LOG_ASIDE).exists() && dir.path().join(STORE_ASIDE).exists());
        assert!(!dir.path().join("log").exists());
        // It is remembered until the node takes part again, and done once.
        let again = carry_out(dir.path(), true).unwrap();
        assert!(again.has_forgotten && again.was_put_aside.is_none());
        assert_eq!(aside(dir.path()).len(), 2);
    }
}

#[test]
fn who_knows_nobody_to_ask_does_not_forget() {
    let dir = with_frames(&[GroupId::META]);
    damage_log(dir.path());
    assert!(order(dir.path(), &damage(), Order::PutAside));
    assert!(carry_out(dir.path(), false).unwrap_err().contains("the log is not whole"));
    assert!(dir.path().join("log").exists() && aside(dir.path()).is_empty());
}

#[test]
fn forgetting_that_was_cut_short_is_done_again() {
    let dir = with_frames(&[GroupId::META]);
    assert!(order(dir.path(), &damage(), Order::Forget));
    let order = Record::read(dir.path()).unwrap();
    carry_out(dir.path(), true).unwrap();
    let (_, first) = data_dir::read_identity(dir.path()).unwrap();
    // All is done but that it is recorded; the start that was cut short had made the folders anew.
    order.write(dir.path()).unwrap();
    std::fs::create_dir_all(dir.path().join("log")).unwrap();
    assert!(carry_out(dir.path(), true).unwrap().has_forgotten);
    assert_ne!(data_dir::read_identity(dir.path()).unwrap().1, first);
    assert!(dir.path().join(LOG_ASIDE).exists());
    assert!(!dir.path().join("log.damaged.2").exists());
}
