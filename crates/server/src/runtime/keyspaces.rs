//! What clients are told of each keyspace on this node: its copy to read, its watches, its term, and whether it has a leader.
//!
//! A keyspace is there from the moment this node learns of it. The worker adds and tells; everybody else reads.

use super::watch_thread::WatchHub;
use crate::engine::DiskEngine;
use parking_lot::RwLock;
use quorate_node::Holding;
use quorate_partition::Reader;
use quorate_types::{KeyspaceId, Rules, Term};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// One keyspace on this node.
pub struct Keyspace {
    /// Which slot a key is in, once that is known.
    rules: OnceLock<Arc<Rules>>,
    /// Its applied state.
    pub reader: Reader<DiskEngine>,
    /// Who watches it.
    pub hub: Arc<WatchHub>,
    /// The newest term that anything here said, of whichever partition: what headers say, which never goes back.
    term: AtomicU64,
    /// Since when this node has missed a leader that writes need; `None` while it knows them all.
    leaderless: watch::Sender<Option<Instant>>,
    /// Where all of it is, once that is known.
    holding: watch::Sender<Option<Holding>>,
    /// Turns true when it is deleted.
    gone: watch::Sender<bool>,
}

impl Keyspace {
    /// Which slot a key is in; `None` until this node knows what the keyspace consists of.
    pub fn rules(&self) -> Option<Arc<Rules>> {
        self.rules.get().cloned()
    }

    /// The newest term known here.
    pub fn term(&self) -> Term {
        Term(self.term.load(Ordering::Relaxed))
    }

    /// Something said this term; the newest that is known now.
    pub fn saw(&self, term: Term) -> Term {
        // Hardly ever a newer one, and to look is cheap.
        let known = self.term();
        if term <= known { known } else { Term(self.term.fetch_max(term.0, Ordering::Relaxed).max(term.0)) }
    }

    /// Whether this node knows who leads; it may be wrong about it for an election timeout.
    pub fn has_leader(&self) -> bool {
        self.leaderless.borrow().is_none()
    }

    /// The worker knows now, or does not any more.
    pub fn set_has_leader(&self, is_known: bool) {
        self.leaderless.send_if_modified(|since| {
            let has_changed = is_known == since.is_some();
            if has_changed {
                *since = (!is_known).then(Instant::now);
            }
            has_changed
        });
    }

    /// Where all of it is, now and later; `None` until that is known.
    pub fn holding(&self) -> watch::Receiver<Option<Holding>> {
        self.holding.subscribe()
    }

    /// The worker looks again where all of it is; it is told whether that was here.
    pub fn note_holding(&self, look: impl FnOnce(bool) -> Option<Holding>) {
        self.holding.send_if_modified(|known| {
            let now = look(known.as_ref().is_some_and(|known| known.is_here));
            let has_changed = now != *known;
            *known = now;
            has_changed
        });
    }

    /// Returns when it is deleted.
    pub async fn gone(&self) {
        // An error means that nobody can know it any more, either.
        let _ = self.gone.subscribe().wait_for(|is_gone| *is_gone).await;
    }

    /// Returns when this node has known no leader for so long, without a break.
    pub async fn leaderless_for(&self, limit: Duration) {
        let mut leaderless = self.leaderless.subscribe();
        loop {
            let since = *leaderless.borrow_and_update();
            let changed = match since {
                None => leaderless.changed().await,
                Some(since) => {
                    match tokio::time::timeout_at((since + limit).into(), leaderless.changed()).await {
                        Ok(changed) => changed,
                        Err(_) => return,
                    }
                }
            };
            // Cannot be: this is the sender.
            if changed.is_err() {
                return;
            }
        }
    }
}

/// All keyspaces that this node knows of.
pub struct Keyspaces {
    known: RwLock<BTreeMap<KeyspaceId, Arc<Keyspace>>>,
    names: RwLock<BTreeMap<String, KeyspaceId>>,
    progress_interval: Duration,
}

impl Keyspaces {
    /// None yet. Quiet watches that ask for it are told how far they are in this interval.
    pub fn new(progress_interval: Duration) -> Arc<Self> {
        Arc::new(Self { known: RwLock::default(), names: RwLock::default(), progress_interval })
    }

    /// The keyspace that `reader` reads, unless it is there already; and its rules, which it keeps for good.
    pub fn add(&self, name: &str, rules: Option<Arc<Rules>>, reader: Reader<DiskEngine>) {
        let id = reader.keyspace();
        let mut known = self.known.write();
        let keyspace = known.entry(reader.keyspace()).or_insert_with(|| {
            let hub = WatchHub::new(reader.clone(), self.progress_interval);
            let leaderless = watch::Sender::new(Some(Instant::now()));
            let gone = watch::Sender::new(false);
            let holding = watch::Sender::new(None);
            let (rules, term) = (OnceLock::new(), AtomicU64::new(0));
            Arc::new(Keyspace { rules, reader, hub, term, leaderless, holding, gone })
        });
        if let Some(rules) = rules {
            // They are the same when they are there.
            let _ = keyspace.rules.set(rules);
        }
        drop(known);
        // Last: who finds the name finds what it names.
        self.names.write().insert(name.to_owned(), id);
    }

    /// It is deleted: nobody finds it any more, and who uses it is told.
    pub fn remove(&self, id: KeyspaceId) {
        self.names.write().retain(|_, named| *named != id);
        if let Some(keyspace) = self.known.write().remove(&id) {
            keyspace.gone.send_replace(true);
        }
    }

    /// The keyspace of this name.
    pub fn by_name(&self, name: &str) -> Option<KeyspaceId> {
        self.names.read().get(name).copied()
    }

    /// One of them.
    pub fn get(&self, id: KeyspaceId) -> Option<Arc<Keyspace>> {
        self.known.read().get(&id).cloned()
    }

    /// All of them.
    pub fn all(&self) -> Vec<Arc<Keyspace>> {
        self.known.read().values().cloned().collect()
    }
}
