//! How the replicas of a partition are spread over zones.
//!
//! Zones are filled evenly, like glasses: each gets one replica, then each a second one, as long as it has nodes. With R replicas
//! and Z zones of enough nodes that is `ceil(R / Z)` at most and `floor(R / Z)` at least. So every zone has `depth - 1` replicas,
//! or as many as it has nodes, and `extras` of those with `depth` nodes or more have one more.

/// What the zones of a cluster can take.
pub(crate) struct Spread {
    /// Replicas of each partition: as many as wanted, or as there are nodes.
    pub(crate) replicas: usize,
    /// The most replicas of a partition that a zone has.
    depth: usize,
    /// How many zones have one more than their base.
    pub(crate) extras: usize,
    /// Nodes of each zone.
    sizes: Vec<usize>,
}

impl Spread {
    /// `wanted` replicas over zones of `sizes` nodes.
    pub(crate) fn new(wanted: usize, sizes: Vec<usize>) -> Self {
        let replicas = wanted.min(sizes.iter().sum());
        let below = |depth: usize| sizes.iter().map(|&size| size.min(depth)).sum::<usize>();
        let depth = (1..).find(|&depth| below(depth) >= replicas).expect("all nodes together hold them");
        let extras = replicas - below(depth - 1);
        Self { replicas, depth, extras, sizes }
    }

    /// Replicas that every partition has in `zone`.
    pub(crate) fn base(&self, zone: usize) -> usize {
        self.sizes[zone].min(self.depth - 1)
    }

    /// Whether `zone` can have one more than its base.
    pub(crate) fn may_have_extra(&self, zone: usize) -> bool {
        self.sizes[zone] >= self.depth
    }

    /// Whether some zone has a base.
    pub(crate) fn has_base(&self) -> bool {
        self.depth > 1
    }

    /// The most replicas of a partition that `zone` has.
    pub(crate) fn most(&self, zone: usize) -> usize {
        self.base(zone) + usize::from(self.may_have_extra(zone))
    }

    /// Nodes of `zone`.
    pub(crate) fn size(&self, zone: usize) -> usize {
        self.sizes[zone]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_are_filled_evenly() {
        let check = |wanted, sizes: &[usize], base: &[usize], most: &[usize]| {
            let spread = Spread::new(wanted, sizes.to_vec());
            let zones = 0..sizes.len();
            assert_eq!(zones.clone().map(|zone| spread.base(zone)).collect::<Vec<_>>(), base);
            assert_eq!(zones.map(|zone| spread.most(zone)).collect::<Vec<_>>(), most);
            assert_eq!(spread.replicas, base.iter().sum::<usize>() + spread.extras);
        };
        check(3, &[3, 3, 3], &[0, 0, 0], &[1, 1, 1]);
        check(3, &[3, 3], &[1, 1], &[2, 2]);
        check(4, &[3, 3, 3], &[1, 1, 1], &[2, 2, 2]);
        check(5, &[1, 1, 5], &[1, 1, 2], &[1, 1, 3]);
        check(3, &[1, 5], &[1, 1], &[1, 2]);
        check(3, &[12], &[2], &[3]);
        check(3, &[1; 12], &[0; 12], &[1; 12]);
        check(7, &[2, 1], &[1, 1], &[2, 1]);
    }
}
