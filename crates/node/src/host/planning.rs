//! What the meta group's leader decides about members and places.
//!
//! * **Lost.** A member that it has not heard for the grace period, and longer than a pause of seconds would explain, gets the standing [`Standing::Lost`], and one that is heard again gets back to
//!   [`Standing::Active`]. Whoever is cut off itself decides nothing, because it commits nothing.
//! * **Targets.** From members and places [`wanted`] says who shall hold what; rows get a target, so many at a time, those groups first that have the
//!   fewest voters alive, and none before the meta group is there. How a group gets there is its leader's affair (`moves.rs`).
//! * **Leaving.** A member that is to go and has no part in any group any more loses its row.
//!
//! Every row is changed by a transaction that finds it as it was read. What is asked for and not seen yet is asked for again after a while.

use super::Host;
use super::rows::{delete, is_as_read, put};
use crate::effects::Notice;
use crate::placing::wanted;
use crate::spreading::{Wish, wishes};
use quorate_consensus::Consensus;
use quorate_mvcc::engine::Engine;
use quorate_types::member::Standing;
use quorate_types::{Encode, Fault, GroupId, KeyRange, Member, NodeId, Place, Tick};
use std::collections::BTreeSet;

/// How often it looks, in ticks.
const PLAN_TICKS: u64 = 25;
/// How long a member that was lost has to be heard before it counts again, in ticks.
const BACK_TICKS: u64 = 100;

impl<E: Engine> Host<E> {
    /// Every so often, at the meta group's leader.
    pub(super) fn tick_planning(&mut self) -> Result<(), Fault> {
        let Some(meta) = self.groups.get(&GroupId::META).filter(|meta| meta.is_serving) else {
            self.planning_since = None;
            return Ok(());
        };
        let since = *self.planning_since.get_or_insert(self.now);
        let has_settled = self.now.since(since) >= self.options.election_ticks_max;
        let can_propose = meta.raft.can_propose().is_ok();
        if !self.now.0.is_multiple_of(PLAN_TICKS) || !can_propose || !has_settled {
            return Ok(());
        }
        if self.is_meta_recovering() {
            return self.put_meta_right();
        }
        // What every cluster begins with may have been refused when this node began to lead.
        self.bootstrap()?;
        self.judge_members()?;
        self.plan_moves()?;
        self.remove_the_leaving()
    }

    fn judge_members(&mut self) -> Result<(), Fault> {
        let changed: Vec<Member> =
            self.roster.members().values().filter_map(|member| self.judged(member)).collect();
        for member in changed {
            let (node, standing) = (member.id, member.standing);
            if self.put_row_of(&member)? {
                self.out.notices.push(Notice::Judged { node, standing });
            }
        }
        Ok(())
    }

    /// The member with another standing, if it has earned one.
    fn judged(&self, member: &Member) -> Option<Member> {
        let standing = match member.standing {
            Standing::Active if self.is_silent_beyond(member.id, self.options.grace_ticks) => Standing::Lost,
            Standing::Lost if self.is_up_since(member.id, BACK_TICKS) => Standing::Active,
            _ => return None,
        };
        Some(Member { standing, ..member.clone() })
    }

    fn put_row_of(&mut self, member: &Member) -> Result<bool, Fault> {
        let key = Member::row_key(member.id);
        let Some((_, modified)) = self.read_row(&key)? else { return Ok(false) };
        self.change_rows(vec![is_as_read(key.clone(), Some(modified))], vec![put(key, member.encoded())])?;
        Ok(true)
    }

    fn plan_moves(&mut self) -> Result<(), Fault> {
        let unheard: BTreeSet<NodeId> =
            self.members.iter().copied().filter(|member| self.is_down(*member)).collect();
        let members: Vec<Member> = self.roster.members().values().cloned().collect();
        let (places, replicas, own) = (&self.roster.places, self.options.replicas, self.options.id);
        let plan: Vec<Wish> = if self.options.spread_replicas {
            wishes(&members, &unheard, places, replicas, own)
        } else {
            let together = wanted(&members, &unheard, places, replicas, own).into_iter();
            together.map(|(group, voters)| Wish { group, voters, leader: None }).collect()
        };
        let is_alive = |id: &NodeId| !unheard.contains(id);
        // What is being split stays, and the meta group with it.
        let is_any_splitting = self.is_any_splitting();
        let is_splitting = |id: &GroupId| match *id {
            GroupId::META => is_any_splitting,
            _ => self.groups.get(id).is_some_and(|group| group.is_splitting),
        };
        let urgency = |wish: &Wish| {
            let place = self.roster.places.get(&wish.group);
            let alive = place.map_or(0, |place| place.voters.iter().filter(|voter| is_alive(voter)).count());
            (wish.group != GroupId::META, alive, wish.group)
        };
        let meta = self.roster.places.get(&GroupId::META);
        let is_meta_moving = meta.is_some_and(|meta| meta.target.is_some());
        // Where leaders gather, the others follow when it is there: their leaders have to be where it is led. Also while it waits for a split.
        let is_meta_first = !self.options.spread_replicas
            && (is_meta_moving || plan.iter().any(|wish| wish.group == GroupId::META));
        // What has lost its quorum cannot move, and must not keep others waiting that can be saved.
        let can_move = |place: &Place| {
            2 * place.voters.iter().filter(|voter| is_alive(voter)).count() > place.voters.len()
        };
        // Nor may it go where it would have none: what is joint of both needs a quorum of those to come, too.
        let will_live =
            |wish: &Wish| 2 * wish.voters.iter().filter(|voter| is_alive(voter)).count() > wish.voters.len();
        let is_able = |wish: &Wish| {
            let is_led = self.roster.places.get(&wish.group).is_some_and(can_move);
            !is_splitting(&wish.group) && is_led && will_live(wish)
        };
        let mut plan: Vec<Wish> = plan.into_iter().filter(is_able).collect();
        plan.sort_by_key(urgency);
        let is_moving = |place: &&Place| place.target.is_some() && can_move(place);
        let moving = self.roster.places.values().filter(is_moving).count();
        let mut room = self.options.moves_max.saturating_sub(moving);
        for wish in plan {
            let Some(place) = self.roster.places.get(&wish.group).cloned() else { continue };
            if wish.group != GroupId::META && is_meta_first {
                break;
            }
            let moves = wish.voters != *place.target.as_ref().unwrap_or(&place.voters);
            if moves && place.target.is_none() && wish.group != GroupId::META {
                if room == 0 {
                    continue;
                }
                room -= 1;
            }
            self.put_target(place, wish)?;
        }
        Ok(())
    }

    fn put_target(&mut self, place: Place, wish: Wish) -> Result<(), Fault> {
        let key = Place::row_key(wish.group);
        let Some((_, modified)) = self.read_row(&key)? else { return Ok(()) };
        let mut compares = vec![is_as_read(key.clone(), Some(modified))];
        // Whoever is to come must not be on its way out.
        for newcomer in wish.voters.iter().filter(|id| !place.voters.contains(id)) {
            let key = Member::row_key(*newcomer);
            let Some((_, modified)) = self.read_row(&key)? else { return Ok(()) };
            compares.push(is_as_read(key, Some(modified)));
        }
        let moves = place.target.is_some() || wish.voters != place.voters;
        let place = Place { target: moves.then_some(wish.voters), leader: wish.leader, ..place };
        self.change_rows(compares, vec![put(key, place.encoded())])
    }

    /// What is to leave and holds nothing any more, goes. That nothing is given to it meanwhile, is what a target's transaction compares.
    fn remove_the_leaving(&mut self) -> Result<(), Fault> {
        // While a group moves, its log may name those of an earlier target.
        let holds =
            |id: NodeId| self.roster.places.values().any(|place| place.target.is_some() || place.holds(id));
        let leaving = self.roster.members().values().filter(|member| member.standing == Standing::Leaving);
        let gone: Vec<NodeId> = leaving.map(|member| member.id).filter(|id| !holds(*id)).collect();
        for id in gone {
            let key = Member::row_key(id);
            let Some((_, modified)) = self.read_row(&key)? else { continue };
            let compares = vec![is_as_read(key.clone(), Some(modified))];
            self.change_rows(compares, vec![delete(KeyRange::Single(key))])?;
        }
        Ok(())
    }
}

/// When this node began to plan, for as long as it does.
pub(super) type Since = Option<Tick>;
