//! What was applied anywhere, as far as it can be seen from outside.

use super::World;
use crate::applied::changes_of;
use crate::checker::Violation;
use quorate_types::{EntryKind, GroupId, KeyspaceId, LogWrite, reached};

impl World {
    /// What the node wrote to its log and what it has applied, as far as that can be seen.
    pub(super) fn note_applied(
        &mut self,
        at: usize,
        written: &[(GroupId, LogWrite)],
    ) -> Result<(), Violation> {
        let node = &mut self.nodes[at];
        let Some(running) = &node.running else { return Ok(()) };
        for (group, write) in written {
            node.shadows.entry(*group).or_default().write(write);
        }
        let id = node.id;
        let mut statuses = running.host.status();
        for status in statuses.extract_if(.., |status| status.group == GroupId::META) {
            let shadow = node.shadows.entry(GroupId::META).or_default();
            let news =
                self.applied_meta.advance(shadow, status.consensus.applied, status.digest, true, self.now);
            if let Err(what) = news {
                return Err(self.violation(format!("at {id}, the meta group: {what}")));
            }
        }
        // The only partition answers whether or not it is registered.
        let is_only =
            running.host.maps().all(|map| map.id != KeyspaceId::DEFAULT || map.partitions.len() == 1);
        let is_alone = statuses.len() == 1 && is_only;
        let mut answering = Vec::new();
        for status in statuses {
            let log = self.applied.entry(status.group).or_default();
            let shadow = node.shadows.entry(status.group).or_default();
            // What it was asked then is answered also after a split.
            if is_alone && status.is_serving {
                shadow.register(status.consensus.term);
            }
            let is_visible = is_alone || status.is_registered;
            if is_visible && !log.is_revealed() {
                answering.push(status.group);
            }
            let news = log.advance(shadow, status.consensus.applied, status.digest, is_visible, self.now);
            let noted = news.and_then(|news| {
                for entry in news {
                    let is_split = entry.kind == EntryKind::Split;
                    reached!("watch-across-split", is_split && running.watches.counts().watches > 0);
                    self.counts.transactions.note(status.group, &entry, &mut self.prepared);
                    if let Some((revision, part)) = changes_of(&entry)? {
                        self.history.add(revision, part, self.now)?;
                    }
                }
                Ok(())
            });
            if let Err(what) = noted {
                return Err(self.violation(format!("at {id}, group {}: {what}", status.group)));
            }
        }
        for group in answering {
            self.reveal_origin(group);
        }
        Ok(())
    }

    /// A partition answers that was split off another: it has what that had until then, though no leader of that may have applied it, as when its disk hangs.
    fn reveal_origin(&mut self, child: GroupId) {
        let split =
            self.applied.iter().find_map(|(group, log)| Some((*group, log.split_off(child.partition)?)));
        let Some((parent, index)) = split else { return };
        let now = self.now;
        if let Some(log) = self.applied.get_mut(&parent) {
            let was_revealed = log.is_revealed();
            log.reveal(index, now);
            if !was_revealed {
                self.reveal_origin(parent);
            }
        }
    }
}
