//! That the cluster has removed this node: how it finds out, and what follows.
//!
//! Whoever is removed may never see the entry that removes it, because from then on the others do not talk to it any more. So those that have
//! seen it say so when it dials them ([`super::hello`]). An id never comes again, so that cannot change: it is recorded in the data directory, and
//! the process stops, as etcd's does. Its clients go elsewhere, and starting it again says what happened.

use crate::data_dir;
use quorate_types::NodeId;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::Notify;
use tracing::error;

/// Members whose rows this node knows to be removed.
pub type Gone = Arc<parking_lot::RwLock<BTreeSet<NodeId>>>;

/// To whom it is told that this node was removed.
#[derive(Debug)]
pub struct Removal {
    data_dir: PathBuf,
    told: Notify,
}

impl Removal {
    /// Nobody has said it yet.
    pub fn new(data_dir: PathBuf) -> Self {
        Self { data_dir, told: Notify::new() }
    }

    /// The cluster has removed this node.
    pub fn tell(&self) {
        error!("this node was removed from the cluster: nobody hears it any more");
        // It stops in any case; not recorded, it finds out again.
        if let Err(error) = data_dir::record_removal(&self.data_dir) {
            error!(%error, "that this node was removed could not be recorded");
        }
        self.told.notify_one();
    }

    /// Ends when it was removed.
    pub async fn told(&self) {
        self.told.notified().await;
    }
}
