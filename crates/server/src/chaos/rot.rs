//! What is done to a node's disk; and a node whose disk has rotted, which counts as concerned until it has noticed and is whole again.
//!
//! `quorate doctor`, on a copy, says whether what has flipped matters. What it finds the node has to find, too, and to mend by itself; if it does not say so, it is stopped
//! and looked at once more: what has been written anew meanwhile is well again. That is a promise of its own, and without it what one round leaves
//! behind and what the next does could be more than the cluster has to survive.

use super::ailments::Ailment;
use super::cluster::State;
use super::faults::{Ended, LOOK, STOP_MAX, Tormentor};
use super::lives::Condition;
use crate::repair;
use quorate_checker::Violation;
use std::time::{Duration, Instant};

/// What a node logs that has mended its store.
const WHOLE: &str = "every group is whole again";
/// Until then a node that looks for damage all the time has found some, if there is any.
const NOTICED_MAX: Duration = Duration::from_secs(20);

/// A node whose disk has rotted.
pub(super) struct Rotten {
    name: String,
    /// What is wrong.
    ills: String,
    /// How much it had logged before.
    logged: u64,
}

impl Tormentor {
    pub(super) async fn ail(&mut self, name: &str, ailment: &Ailment) -> Result<(), Ended> {
        let folder = self.cluster.folder.clone();
        let Some(machine) = self.cluster.named(name) else { return Ok(()) };
        if matches!(ailment, Ailment::PowerLoss(_) | Ailment::Rot(_)) {
            machine.kill();
        }
        machine.may_end = ailment.may_end_a_node().then(|| machine.logged());
        if let Some(disk) = &machine.disk {
            disk.ail(ailment)?;
        }
        if let Ailment::Rot(_) = ailment {
            // A node repairs itself some times a day; here there is a day between any two.
            repair::forget_times(&machine.data_dir)?;
            if let Some(disk) = &machine.disk {
                disk.settle()?;
            }
            if let Some(ills) = machine.ills(&folder).await? {
                let logged = machine.logged();
                self.rot.push(Rotten { name: name.to_owned(), ills, logged });
            }
        }
        Ok(())
    }

    /// When all nodes serve: waits until those are whole whose disks have rotted.
    pub(super) async fn recover(&mut self) -> Result<(), Ended> {
        let begun = Instant::now();
        for rotten in std::mem::take(&mut self.rot) {
            while begun.elapsed() < NOTICED_MAX && !self.is_whole(&rotten) {
                self.all_live()?;
                tokio::time::sleep(LOOK).await;
            }
            if !self.is_whole(&rotten) {
                self.look_again(rotten).await?;
            }
        }
        let now = self.now();
        let names: Vec<String> = self.cluster.machines.iter().map(|machine| machine.name.clone()).collect();
        names.iter().for_each(|name| self.lives.end(name, Condition::Rotten, now));
        Ok(())
    }

    /// Whether it has said so, or there is nothing left to say it.
    fn is_whole(&mut self, rotten: &Rotten) -> bool {
        let absent = self.cluster.absent.clone();
        self.cluster.named(&rotten.name).is_none_or(|machine| {
            absent.as_ref() == Some(&machine.name) || machine.has_logged(WHOLE, rotten.logged)
        })
    }

    /// Stops it for a moment, to see whether it is whole without having said so.
    async fn look_again(&mut self, rotten: Rotten) -> Result<(), Ended> {
        let begun = Instant::now();
        let folder = self.cluster.folder.clone();
        let Some(machine) = self.cluster.named(&rotten.name) else { return Ok(()) };
        if machine.state == State::Running {
            let stopped = machine.stop(STOP_MAX).await;
            if let Err(problem) = stopped {
                return Err(self.wrong(problem));
            }
        }
        let Some(machine) = self.cluster.named(&rotten.name) else { return Ok(()) };
        if let Some(disk) = &machine.disk {
            disk.settle()?;
        }
        if let Some(ills) = machine.ills(&folder).await? {
            let what = format!(
                "{} serves, and {:?} later has not mended what rotted",
                rotten.name,
                NOTICED_MAX + begun.elapsed()
            );
            return Err(Ended::Wrong(Violation::new(what, vec![rotten.ills, ills])));
        }
        machine.start()?;
        self.lives.started(&rotten.name, self.book.now());
        self.serve().await
    }
}
