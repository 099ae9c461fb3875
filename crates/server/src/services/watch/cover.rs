//! Which nodes a stream asks for which slots.

use quorate_types::{NodeId, SlotSet};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Cuts `slots` among those who hold some of them: few nodes, this one first, then whoever has most of what is left. Of equals another comes first for
/// each `turn`. What nobody holds is left out.
pub(super) fn cover(
    slots: &SlotSet,
    own: (NodeId, &SlotSet),
    others: &BTreeMap<NodeId, Arc<SlotSet>>,
    turn: usize,
) -> Vec<(NodeId, SlotSet)> {
    let both = |a: &SlotSet, b: &SlotSet| a.subtract(&a.subtract(b));
    let mut rest = slots.clone();
    let mut chosen = Vec::new();
    let here = both(&rest, own.1);
    if !here.is_empty() {
        rest = rest.subtract(&here);
        chosen.push((own.0, here));
    }
    let mut left: Vec<(NodeId, &SlotSet)> = others.iter().map(|(node, held)| (*node, &**held)).collect();
    if !left.is_empty() {
        let first = turn % left.len();
        left.rotate_left(first);
    }
    while !rest.is_empty() {
        let found = left.iter().map(|(node, held)| (*node, both(&rest, held)));
        // Of equals the first.
        let most = found.rev().max_by_key(|(_, found)| found.len()).filter(|(_, found)| !found.is_empty());
        let Some((node, found)) = most else { break };
        rest = rest.subtract(&found);
        chosen.push((node, found));
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(ranges: &[(u16, u16)]) -> SlotSet {
        SlotSet::from_ranges(ranges.iter().map(|(from, to)| *from..*to))
    }

    #[test]
    fn few_nodes_are_asked_this_one_first() {
        let held = [(2, slots(&[(0, 200), (300, 400)])), (3, slots(&[(100, 400)])), (4, slots(&[(0, 100)]))];
        let others = held.map(|(node, held)| (NodeId(node), Arc::new(held))).into();
        let look = |wanted: &SlotSet, own: &SlotSet, turn| cover(wanted, (NodeId(1), own), &others, turn);
        let all = slots(&[(0, 400)]);
        let none = SlotSet::none();
        assert_eq!(
            look(&all, &slots(&[(0, 50), (350, 500)]), 0),
            [
                (NodeId(1), slots(&[(0, 50), (350, 400)])),
                (NodeId(3), slots(&[(100, 350)])),
                (NodeId(2), slots(&[(50, 100)])),
            ]
        );
        assert_eq!(look(&all, &all, 0), [(NodeId(1), all.clone())]);
        // Of equals each in its turn.
        let first = |turn| look(&slots(&[(0, 100)]), &none, turn)[0].0;
        assert_eq!((first(0), first(1), first(2)), (NodeId(2), NodeId(4), NodeId(4)));
        // What nobody has.
        assert_eq!(look(&slots(&[(350, 450)]), &none, 0), [(NodeId(2), slots(&[(350, 400)]))]);
        assert_eq!(look(&slots(&[(500, 600)]), &none, 0), []);
    }
}
