//! Nodes that end at one crash point after the other, and are started anew each time.

use super::{Cluster, LOOK, Node, PATIENCE};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Until a node has come to a point: longer than anything else is waited for, as where the disk is slow it may first have to be filled with a snapshot.
const POINT_MAX: Duration = Duration::from_secs(180);

/// What a node has before it.
#[derive(Default)]
struct Course {
    /// Points, with the passage if that is not the first, in the order in which it is to end at them.
    ahead: VecDeque<String>,
    /// Of the last start: where it is to end, and when it was started.
    armed: Option<(String, Instant)>,
}

/// Whether the last life of a node ended at a crash point. Other threads may have said something while the end came.
pub fn has_ended_at(node: &Node, name: &str) -> bool {
    let log = node.log();
    let life = log.rsplit("quorate: will end at crash point ").next().unwrap_or_default();
    life.lines().any(|line| line == format!("quorate: ends at crash point {name}"))
}

/// A cluster whose nodes end at crash points.
pub struct Crashes {
    pub cluster: Cluster,
    courses: Vec<Course>,
    /// How often some node has ended at a point.
    pub ends: usize,
}

impl Crashes {
    /// Of a cluster that is not started, or runs.
    pub fn new(cluster: Cluster) -> Self {
        let mut crashes = Self { cluster, courses: Vec::new(), ends: 0 };
        crashes.follow();
        crashes
    }

    /// Nodes may have been added.
    fn follow(&mut self) {
        self.courses.resize_with(self.cluster.nodes.len(), Course::default);
    }

    /// Has a node end at these points, one after the other, when it is started next.
    pub fn plan(&mut self, at: usize, points: &[&str]) {
        self.follow();
        self.courses[at].ahead.extend(points.iter().map(|point| (*point).to_owned()));
    }

    /// The same of all nodes, each at its share of the points, `turn` turns on.
    pub fn share(&mut self, points: &[&str], turn: usize) {
        let nodes = self.cluster.nodes.len();
        for (number, point) in points.iter().enumerate() {
            self.plan((number + turn) % nodes, &[point]);
        }
    }

    /// Starts a node that does not run, to end at its next point if it has one.
    pub fn start(&mut self, at: usize) {
        self.follow();
        let next = self.courses[at].ahead.pop_front();
        self.courses[at].armed = next.clone().map(|point| (point, Instant::now()));
        self.cluster.nodes[at].crash_at = next;
        self.cluster.nodes[at].start();
    }

    /// Starts all nodes anew that have points before them.
    pub fn restart(&mut self) {
        self.follow();
        for at in 0..self.cluster.nodes.len() {
            if self.courses[at].armed.is_none() && !self.courses[at].ahead.is_empty() {
                self.cluster.nodes[at].kill();
                self.start(at);
            }
        }
    }

    /// Takes a node away that has nothing before it.
    pub fn leave(&mut self, at: usize) {
        assert!(self.courses.remove(at).armed.is_none(), "node {at} is to end first");
        self.cluster.nodes.remove(at);
    }

    /// Goes on with `work` until one has ended at its point; then all are ended, and started anew without any.
    pub async fn first_reached_by(&mut self, mut work: impl AsyncFnMut()) {
        let first = async {
            while self.cluster.nodes.iter_mut().all(Node::is_running) {
                tokio::time::sleep(LOOK).await;
            }
        };
        let work = async {
            loop {
                work().await;
            }
        };
        tokio::time::timeout(PATIENCE, async {
            tokio::select! {
                () = first => {}
                () = work => unreachable!("it goes on for ever"),
            }
        })
        .await
        .unwrap_or_else(|_| panic!("nobody has come to {:?}", self.armed()));
        for at in 0..self.cluster.nodes.len() {
            if !self.cluster.nodes[at].is_running()
                && let Some((point, _)) = self.courses[at].armed.take()
            {
                self.ended(at, &point);
            }
        }
        for at in 0..self.cluster.nodes.len() {
            self.cluster.nodes[at].kill();
            self.start(at);
        }
    }

    fn armed(&self) -> Vec<&str> {
        self.courses.iter().filter_map(|course| Some(course.armed.as_ref()?.0.as_str())).collect()
    }

    /// Starts those anew that have ended; whether nobody has any point before him.
    pub fn look(&mut self) -> bool {
        for at in 0..self.cluster.nodes.len() {
            let Some((point, since)) = self.courses[at].armed.clone() else {
                assert!(self.cluster.nodes[at].is_running(), "node {at} ended, and at no crash point");
                continue;
            };
            if self.cluster.nodes[at].is_running() {
                assert!(since.elapsed() < POINT_MAX, "node {at} has not come to {point}");
                continue;
            }
            self.ended(at, &point);
            self.start(at);
        }
        self.courses.iter().all(|course| course.armed.is_none())
    }

    /// A node that does not run ended where it was to.
    pub fn ended(&mut self, at: usize, point: &str) {
        let node = &mut self.cluster.nodes[at];
        node.kill();
        let name = point.split(':').next().unwrap();
        assert!(has_ended_at(node, name), "{} ended, and not at {name}", node.name);
        self.ends += 1;
    }

    /// Waits until every node has ended at all of its points and was started once more.
    pub async fn all_reached(&mut self) {
        while !self.look() {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The same, and goes on with `work` until then.
    pub async fn reached_by(&mut self, mut work: impl AsyncFnMut()) {
        let work = async {
            loop {
                work().await;
            }
        };
        tokio::select! {
            () = self.all_reached() => {}
            () = work => unreachable!("it goes on for ever"),
        }
    }
}
