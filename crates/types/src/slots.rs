//! Sets of slots: what a partition of a keyspace owns.
//!
//! A set is a list of half-open ranges of slot numbers: none empty, ascending, no two touching, all within [`SLOTS`]. So equal
//! sets have one form, in memory and stored, and a set that was split and joined again is what it was.

use crate::codec::{Decode, Encode, Input, Malformed, Output};
use crate::{SLOTS, Slot};
use std::fmt;
use std::ops::Range;

/// A set of slots. Its ranges are ascending, none is empty, between two of them lies at least one slot, and none goes
/// beyond [`SLOTS`].
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotSet {
    /// From (inclusive), to (exclusive).
    ranges: Vec<(u16, u16)>,
}

impl SlotSet {
    /// Every slot.
    pub fn all() -> Self {
        Self { ranges: vec![(0, SLOTS)] }
    }

    /// No slot.
    pub fn none() -> Self {
        Self::default()
    }

    /// The slots of all these ranges, which may overlap and come in any order; panics at one beyond [`SLOTS`].
    pub fn from_ranges(ranges: impl IntoIterator<Item = Range<u16>>) -> Self {
        let mut pairs: Vec<(u16, u16)> = ranges
            .into_iter()
            .filter(|range| !range.is_empty())
            .map(|range| (range.start, range.end))
            .collect();
        pairs.sort_unstable();
        let mut set = Self::none();
        for (from, to) in pairs {
            assert!(to <= SLOTS, "slots {from} to {to} of {SLOTS}");
            set.push(from, to);
        }
        set
    }

    /// Whether the slot is one of them.
    pub fn contains(&self, slot: Slot) -> bool {
        let behind = self.ranges.partition_point(|(from, _)| *from <= slot.0);
        behind.checked_sub(1).and_then(|at| self.ranges.get(at)).is_some_and(|(_, to)| slot.0 < *to)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Whether it is every slot there is.
    pub fn is_all(&self) -> bool {
        self.ranges == [(0, SLOTS)]
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.ranges().map(|range| range.len()).sum()
    }

    /// The ranges, ascending, none empty, no two touching.
    pub fn ranges(&self) -> impl Iterator<Item = Range<u16>> + '_ {
        self.ranges.iter().map(|(from, to)| *from..*to)
    }

    /// What is in one or the other.
    pub fn union(&self, other: &Self) -> Self {
        Self::from_ranges(self.ranges().chain(other.ranges()))
    }

    /// What is in this and not in the other.
    pub fn subtract(&self, other: &Self) -> Self {
        let mut rest = Self::none();
        for (mut from, to) in self.ranges.iter().copied() {
            for taken in other.ranges() {
                if to <= taken.start || taken.end <= from {
                    continue;
                }
                if from < taken.start {
                    rest.push(from, taken.start);
                }
                from = taken.end;
            }
            if from < to {
                rest.push(from, to);
            }
        }
        rest
    }

    /// The lower and the upper half by count, the lower one being no larger; `None` when there are fewer than two slots.
    pub fn split(&self) -> Option<(Self, Self)> {
        let half = self.len() / 2;
        if half == 0 {
            return None;
        }
        let (mut lower, mut upper) = (Self::none(), Self::none());
        let mut taken = 0;
        for (from, to) in self.ranges.iter().copied() {
            let part = usize::from(to - from).min(half - taken);
            taken += part;
            let middle = from + part as u16;
            if from < middle {
                lower.push(from, middle);
            }
            if middle < to {
                upper.push(middle, to);
            }
        }
        Some((lower, upper))
    }

    /// Adds a range that is not empty and does not begin before the last one.
    fn push(&mut self, from: u16, to: u16) {
        match self.ranges.last_mut() {
            Some((_, end)) if from <= *end => *end = (*end).max(to),
            _ => self.ranges.push((from, to)),
        }
    }
}

impl fmt::Display for SlotSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("none");
        }
        for (number, (from, to)) in self.ranges.iter().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            write!(f, "{comma}{from}-{}", to - 1)?;
        }
        Ok(())
    }
}

impl Encode for SlotSet {
    fn encode(&self, out: &mut impl Output) {
        self.ranges.encode(out);
    }
}

impl Decode for SlotSet {
    fn decode(input: &mut Input) -> Result<Self, Malformed> {
        let ranges = Vec::<(u16, u16)>::decode(input)?;
        let mut least = 0;
        for (from, to) in &ranges {
            if *from < least || from >= to || *to > SLOTS {
                return Err(Malformed("a set of slots, whose ranges ascend and do not touch"));
            }
            least = to + 1;
        }
        Ok(Self { ranges })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Small numbers, and a few that reach the end.
    const EDGES: [u16; 8] = [0, 1, 2, 3, 5, 8, SLOTS - 1, SLOTS];

    fn naive(set: &SlotSet) -> BTreeSet<u16> {
        set.ranges().flatten().collect()
    }

    /// Every set that up to two ranges between the edges can make.
    fn sets() -> Vec<SlotSet> {
        let ranges =
            || EDGES.iter().flat_map(|from| EDGES.map(|to| *from..to)).filter(|range| range.len() < 100);
        let mut sets: BTreeSet<SlotSet> = ranges()
            .flat_map(|one| ranges().map(move |two| SlotSet::from_ranges([one.clone(), two])))
            .collect();
        sets.insert(SlotSet::none());
        sets.into_iter().collect()
    }

    #[test]
    fn sets_do_what_a_naive_set_of_numbers_does() {
        let sets = sets();
        for one in &sets {
            let numbers = naive(one);
            assert_eq!(one.len(), numbers.len());
            assert_eq!(one.is_empty(), numbers.is_empty());
            for slot in (0..12).chain(SLOTS - 3..SLOTS) {
                assert_eq!(one.contains(Slot(slot)), numbers.contains(&slot), "{slot} in {one}");
            }
            assert_eq!(SlotSet::from_bytes(one.encoded()).as_ref(), Ok(one));
            match one.split() {
                None => assert!(numbers.len() < 2),
                Some((lower, upper)) => {
                    assert!(lower.len() == numbers.len() / 2);
                    assert!(naive(&lower).last() < naive(&upper).first());
                    assert_eq!(&lower.union(&upper), one);
                }
            }
            for two in &sets {
                let others = naive(two);
                assert_eq!(naive(&one.union(two)), numbers.union(&others).copied().collect());
                assert_eq!(naive(&one.subtract(two)), numbers.difference(&others).copied().collect());
                // One form for equal sets.
                assert_eq!(one == two, numbers == others, "{one} and {two}");
                assert_eq!(SlotSet::from_bytes(one.subtract(two).encoded()), Ok(one.subtract(two)));
            }
        }
    }

    #[test]
    fn halves_of_halves_make_the_whole_again() {
        let mut parts = vec![SlotSet::all()];
        for _ in 0..8 {
            parts = parts
                .iter()
                .flat_map(|part| part.split())
                .flat_map(|(lower, upper)| [lower, upper])
                .collect();
        }
        assert!(parts.iter().all(|part| part.len() == 64) && parts.len() == 256);
        let whole = parts.iter().fold(SlotSet::none(), |whole, part| whole.union(part));
        assert!(whole.is_all() && SlotSet::all().is_all() && !parts[0].is_all());
        assert_eq!(SlotSet::all().subtract(&parts[1]).to_string(), "0-63,128-16383");
    }

    #[test]
    fn sets_that_are_not_in_form_are_refused() {
        for ranges in [
            vec![(0u16, SLOTS + 1)],
            vec![(5, 5)],
            vec![(6, 5)],
            vec![(0, 2), (2, 4)],
            vec![(0, 3), (2, 4)],
            vec![(4, 5), (0, 2)],
            vec![(u16::MAX, u16::MAX)],
        ] {
            assert!(SlotSet::from_bytes(ranges.encoded()).is_err(), "{ranges:?}");
        }
    }
}
