//! A power failure: what was not synced is lost, or some of it; all that was open is gone.

use crate::random::Random;
use crate::volume::{Kind, Volume, errno};
use rustix::io::Errno;

/// What of the unsynced is there after a power failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsynced {
    /// Nothing.
    Lost,
    /// What had been written back when the power failed, drawn from a seed: changes of names up to some moment in each directory; of
    /// each file some length and some pages, whatever their order was, and of one page some sectors.
    Some(u64),
}

impl Volume {
    /// The power fails and comes back. Whoever has something open finds it stale.
    pub fn power_failure(&mut self, unsynced: Unsynced) -> Result<(), Errno> {
        if let Unsynced::Some(seed) = unsynced {
            let mut random = Random::new(seed);
            self.commit_some(&mut random)?;
            for node in self.nodes.values_mut() {
                if let Kind::File(content) = &mut node.kind {
                    content.survive(&mut random).map_err(|error| errno(&error))?;
                }
            }
        }
        self.load().map_err(|error| errno(&error))
    }
}
