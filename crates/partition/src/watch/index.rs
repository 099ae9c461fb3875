//! Which watches cover a key.
//!
//! A change must not cost a look at every watch: ten thousand watches of as many keys or prefixes are
//! an ordinary day of a Kubernetes cluster. So single keys stand in an ordered map, and ranges in an
//! interval tree: an AVL tree ordered by (start, end), where each node also knows the greatest end
//! below it, so that whole subtrees that end before the key are passed over (Cormen et al., 14.3).
//! Watches of the same range share one node.
//!
//! Invariants:
//! * For every node: left < node < right by (start, end), the heights of its children differ by one at
//!   most, and `end_max` is the greatest end in its subtree.
//! * No node and no map entry without a watch.
//!
//! The tree is balanced by construction and not by chance, because who creates watches could steer
//! pseudo-random priorities that are the same in every run. Finding costs O((1 + found) log n).

use super::WatchRef;
use quorate_types::{Key, KeyRange};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

/// Watches by the keys they cover.
#[derive(Debug, Default)]
pub(super) struct RangeIndex {
    keys: BTreeMap<Key, BTreeSet<WatchRef>>,
    ranges: Link,
}

impl RangeIndex {
    /// Adds a watch. An empty range covers nothing and is not kept.
    pub(super) fn insert(&mut self, range: &KeyRange, watch: WatchRef) {
        match range {
            KeyRange::Single(key) => {
                self.keys.entry(key.clone()).or_default().insert(watch);
            }
            range if range.is_empty() => {}
            KeyRange::Between(start, end) => {
                insert(&mut self.ranges, Span { start: start.clone(), end: End::Before(end.clone()) }, watch)
            }
            KeyRange::From(start) => {
                insert(&mut self.ranges, Span { start: start.clone(), end: End::Never }, watch)
            }
        }
    }

    /// Takes out a watch that was added with this very range.
    pub(super) fn remove(&mut self, range: &KeyRange, watch: WatchRef) {
        match range {
            KeyRange::Single(key) => {
                if let Some(watches) = self.keys.get_mut(key) {
                    watches.remove(&watch);
                    if watches.is_empty() {
                        self.keys.remove(key);
                    }
                }
            }
            KeyRange::Between(start, end) => {
                let span = Span { start: start.clone(), end: End::Before(end.clone()) };
                remove(&mut self.ranges, &span, watch)
            }
            KeyRange::From(start) => {
                remove(&mut self.ranges, &Span { start: start.clone(), end: End::Never }, watch)
            }
        }
    }

    /// Calls `found` once for every watch that covers `key`, in no order that means anything.
    pub(super) fn covering(&self, key: &[u8], mut found: impl FnMut(WatchRef)) {
        if let Some(watches) = self.keys.get(key) {
            watches.iter().copied().for_each(&mut found);
        }
        visit(&self.ranges, key, &mut found);
    }
}

/// Where a range stops.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    /// Right before this key.
    Before(Key),
    /// Nowhere; greater than every key.
    Never,
}

impl End {
    fn is_after(&self, key: &[u8]) -> bool {
        match self {
            Self::Before(end) => key < end.as_ref(),
            Self::Never => true,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Span {
    start: Key,
    end: End,
}

type Link = Option<Box<Node>>;

#[derive(Debug)]
struct Node {
    span: Span,
    watches: BTreeSet<WatchRef>,
    height: u32,
    end_max: End,
    left: Link,
    right: Link,
}

impl Node {
    /// Recomputes what is derived from the children.
    fn update(&mut self) {
        self.height = 1 + height(&self.left).max(height(&self.right));
        let children = [&self.left, &self.right].into_iter().flatten().map(|child| &child.end_max);
        let end_max = children.fold(&self.span.end, |max, end| max.max(end));
        self.end_max = end_max.clone();
    }
}

fn height(link: &Link) -> u32 {
    link.as_ref().map_or(0, |node| node.height)
}

fn visit(link: &Link, key: &[u8], found: &mut impl FnMut(WatchRef)) {
    let Some(node) = link else { return };
    if !node.end_max.is_after(key) {
        return;
    }
    visit(&node.left, key, found);
    if node.span.start.as_ref() <= key {
        if node.span.end.is_after(key) {
            node.watches.iter().copied().for_each(&mut *found);
        }
        visit(&node.right, key, found);
    }
}

fn insert(link: &mut Link, span: Span, watch: WatchRef) {
    let Some(node) = link else {
        *link = Some(Box::new(Node {
            end_max: span.end.clone(),
            span,
            watches: BTreeSet::from([watch]),
            height: 1,
            left: None,
            right: None,
        }));
        return;
    };
    match span.cmp(&node.span) {
        Ordering::Less => insert(&mut node.left, span, watch),
        Ordering::Greater => insert(&mut node.right, span, watch),
        Ordering::Equal => {
            node.watches.insert(watch);
            return;
        }
    }
    rebalance(link);
}

fn remove(link: &mut Link, span: &Span, watch: WatchRef) {
    let Some(node) = link else { return };
    match span.cmp(&node.span) {
        Ordering::Less => remove(&mut node.left, span, watch),
        Ordering::Greater => remove(&mut node.right, span, watch),
        Ordering::Equal => {
            node.watches.remove(&watch);
            if !node.watches.is_empty() {
                return;
            }
            *link = match (node.left.take(), node.right.take()) {
                (child, None) | (None, child) => child,
                (left, mut right) => take_first(&mut right).map(|mut first| {
                    (first.left, first.right) = (left, right);
                    first
                }),
            };
        }
    }
    rebalance(link);
}

/// Takes out the smallest node of a subtree.
fn take_first(link: &mut Link) -> Link {
    let node = link.as_mut()?;
    let first = if node.left.is_some() {
        take_first(&mut node.left)
    } else {
        let rest = node.right.take();
        return std::mem::replace(link, rest);
    };
    rebalance(link);
    first
}

/// Restores height, `end_max` and balance of a node whose children are in order and differ by two in
/// height at most.
fn rebalance(link: &mut Link) {
    let Some(node) = link else { return };
    let (left, right) = (height(&node.left), height(&node.right));
    if left > right + 1 {
        if let Some(child) = &node.left
            && height(&child.left) < height(&child.right)
        {
            rotate_left(&mut node.left);
        }
        rotate_right(link);
    } else if right > left + 1 {
        if let Some(child) = &node.right
            && height(&child.right) < height(&child.left)
        {
            rotate_right(&mut node.right);
        }
        rotate_left(link);
    } else {
        node.update();
    }
}

/// The left child, if there is one, becomes the root.
fn rotate_right(link: &mut Link) {
    let Some(mut old) = link.take() else { return };
    match old.left.take() {
        None => *link = Some(old),
        Some(mut root) => {
            old.left = root.right.take();
            old.update();
            root.right = Some(old);
            root.update();
            *link = Some(root);
        }
    }
}

/// The right child, if there is one, becomes the root.
fn rotate_left(link: &mut Link) {
    let Some(mut old) = link.take() else { return };
    match old.right.take() {
        None => *link = Some(old),
        Some(mut root) => {
            old.right = root.left.take();
            old.update();
            root.left = Some(old);
            root.update();
            *link = Some(root);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::StreamId;
    use super::super::testing::Random;
    use super::*;

    fn watch(number: u64) -> WatchRef {
        WatchRef { stream: StreamId(number % 3), number }
    }

    /// Checks the invariants of a subtree and returns how many nodes it has.
    fn check(link: &Link, low: Option<&Span>, high: Option<&Span>) -> usize {
        let Some(node) = link else { return 0 };
        assert!(low.is_none_or(|low| *low < node.span) && high.is_none_or(|high| node.span < *high));
        assert!(height(&node.left).abs_diff(height(&node.right)) <= 1, "unbalanced at {:?}", node.span);
        assert!(!node.watches.is_empty());
        let count = 1 + check(&node.left, low, Some(&node.span)) + check(&node.right, Some(&node.span), high);
        let ends = [&node.left, &node.right].into_iter().flatten().map(|child| child.end_max.clone());
        assert_eq!(Some(&node.end_max), ends.chain([node.span.end.clone()]).max().as_ref());
        assert_eq!(node.height, 1 + height(&node.left).max(height(&node.right)));
        count
    }

    #[test]
    fn it_finds_what_a_look_at_every_watch_finds() {
        for seed in 0..30 {
            let mut random = Random::new(seed);
            let mut index = RangeIndex::default();
            let mut naive: Vec<(KeyRange, WatchRef)> = Vec::new();
            for step in 0..600 {
                if !naive.is_empty() && random.below(100) < if step < 300 { 30 } else { 60 } {
                    let (range, watch) = naive.swap_remove(random.below(naive.len()));
                    index.remove(&range, watch);
                } else {
                    let range = random.range();
                    index.insert(&range, watch(step));
                    naive.push((range, watch(step)));
                }
                check(&index.ranges, None, None);
                let key = random.key();
                let mut found = Vec::new();
                index.covering(&key, |watch| found.push(watch));
                found.sort();
                let mut expected: Vec<_> =
                    naive.iter().filter(|(range, _)| range.contains(&key)).map(|(_, watch)| *watch).collect();
                expected.sort();
                assert_eq!(found, expected, "seed {seed} step {step} key {key:?}");
            }
        }
    }

    #[test]
    fn ten_thousand_prefixes_in_order_stay_shallow_and_share_nodes() {
        let mut index = RangeIndex::default();
        for n in 0..10_000u64 {
            index.insert(&KeyRange::prefix(format!("/registry/{n:05}/")), watch(n));
            index.insert(&KeyRange::prefix("/registry/"), watch(10_000 + n));
        }
        assert_eq!(check(&index.ranges, None, None), 10_001);
        assert!(height(&index.ranges) <= 19, "{}", height(&index.ranges));
        let mut found = 0;
        index.covering(b"/registry/04711/x", |_| found += 1);
        assert_eq!(found, 10_001);
    }

    #[test]
    fn taking_out_what_is_not_there_changes_nothing() {
        let mut index = RangeIndex::default();
        for range in [KeyRange::Single("a".into()), KeyRange::prefix("a"), KeyRange::all()] {
            index.remove(&range, watch(1));
            index.insert(&range, watch(1));
            index.remove(&range, watch(2));
        }
        let mut found = 0;
        index.covering(b"a", |_| found += 1);
        assert_eq!(found, 3);
        index.insert(&KeyRange::Between("b".into(), "a".into()), watch(9));
        assert_eq!(check(&index.ranges, None, None), 2);
    }
}
