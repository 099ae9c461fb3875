//! Carrying faults out on the nodes, making all well again, and seeing that all serve then.

use super::ailments::Ailment;
use super::book::Book;
use super::chronicle::Chronicle;
use super::client::{Client, channel_to};
use super::cluster::{Cluster, State};
use super::leaders::Leaders;
use super::lives::{Condition, Lives};
use super::load;
use super::plan::{Fault, Plan, Round, Seen};
use super::rot::Rotten;
use super::timeline::{Deed, Entry};
use parking_lot::Mutex;
use quorate_checker::Violation;
use quorate_checker::calls::Outcome;
use quorate_consensus::random::Random;
use serde_json::Value;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tonic::codegen::http::Method;

/// Between two looks at something that is waited for.
pub(super) const LOOK: Duration = Duration::from_millis(100);
const ANSWER_MAX: Duration = Duration::from_secs(3);
/// A node that is told to stop has so long.
pub(super) const STOP_MAX: Duration = Duration::from_secs(30);

/// Why a run cannot go on.
#[derive(Debug)]
pub(super) enum Ended {
    /// The cluster has done what it must not.
    Wrong(Violation),
    /// We could not do our part.
    Ours(String),
}

impl From<String> for Ended {
    fn from(what: String) -> Self {
        Self::Ours(what)
    }
}

/// Who does all that to the nodes.
pub(super) struct Tormentor {
    pub(super) cluster: Cluster,
    pub(super) book: Arc<Book>,
    pub(super) client: Client,
    pub(super) random: Random,
    pub(super) timeline: Vec<Entry>,
    pub(super) lives: Lives,
    pub(super) leaders: Arc<Mutex<Leaders>>,
    /// How long anything may take when all is well.
    pub(super) patience: Duration,
    /// Says what happens.
    pub(super) say: fn(&str),
    /// Whether faults are there that are not to be ended yet.
    pub(super) is_holding: bool,
    pub(super) rot: Vec<Rotten>,
    pub(super) chronicle: Chronicle,
}

impl Tormentor {
    pub(super) fn now(&self) -> u64 {
        self.book.now()
    }

    pub(super) fn say(&self, what: &str) {
        (self.say)(&format!("{:>7.1} s  {what}", self.now() as f64 / 1e6));
    }

    pub(super) fn wrong(&self, what: String) -> Ended {
        let tails = self.cluster.machines.iter().flat_map(|machine| machine.log_tail());
        Ended::Wrong(Violation::new(what, tails.collect()))
    }

    /// A process that ended by itself ends the run, unless its disk was a reason: then it is started when all is well.
    pub(super) fn all_live(&mut self) -> Result<(), Ended> {
        for (name, how) in self.cluster.fallen() {
            self.say(&how);
            let now = self.book.now();
            self.lives.begin(&name, Condition::Down, now);
            if let Some(machine) = self.cluster.named(&name)
                && !self.is_holding
            {
                machine.start()?;
                self.lives.started(&name, now);
            }
        }
        match self.cluster.ended() {
            Some(what) => Err(self.wrong(what)),
            None => Ok(()),
        }
    }

    async fn sleep(&mut self, time: Duration) -> Result<(), Ended> {
        let begun = Instant::now();
        while begun.elapsed() < time {
            self.all_live()?;
            tokio::time::sleep(LOOK.min(time)).await;
        }
        Ok(())
    }

    /// Waits until the list of nodes is as it should be.
    pub(super) async fn until(&mut self, what: &str, is_right: impl Fn(&Value) -> bool) -> Result<(), Ended> {
        let begun = Instant::now();
        loop {
            self.all_live()?;
            let list = self.cluster.list().await;
            if list.as_ref().is_ok_and(&is_right) {
                return Ok(());
            }
            if begun.elapsed() > self.patience {
                let last = list.map_or_else(|problem| problem, |list| list.to_string());
                return Err(self.wrong(format!("{what}: not after {:?}; {last}", self.patience)));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until every node answers a linearizable read over many partitions, and acknowledges a write over as many.
    pub(super) async fn serve(&mut self) -> Result<(), Ended> {
        let begun = Instant::now();
        let nodes = self.cluster.members();
        for (name, address) in nodes {
            let channel = channel_to(&address, Some(ANSWER_MAX))?;
            loop {
                self.all_live()?;
                let (read, write) = load::serving(&name, self.book.unique());
                let mut outcome = self.client.call_at(name.clone(), channel.clone(), read).await;
                if matches!(outcome, Outcome::Reply(..)) {
                    outcome = self.client.call_at(name.clone(), channel.clone(), write).await;
                }
                let takes_part = self.cluster.named(&name).is_none_or(|machine| machine.takes_part());
                if matches!(outcome, Outcome::Reply(..)) && takes_part {
                    self.lives.served(&name, self.book.now());
                    if let Some(machine) = self.cluster.named(&name) {
                        machine.may_end = None;
                    }
                    break;
                }
                if begun.elapsed() > self.patience {
                    let problem = match outcome {
                        Outcome::Reply(..) => "it does not take part".to_owned(),
                        Outcome::Refused(why) | Outcome::Unknown(why) => why,
                    };
                    let list = self.cluster.list().await.map_or_else(|what| what, |list| list.to_string());
                    let what = format!(
                        "all is well, and {name} does not serve after {:?}: {problem}; {list}",
                        self.patience
                    );
                    return Err(self.wrong(what));
                }
                tokio::time::sleep(LOOK).await;
            }
        }
        Ok(())
    }

    /// The nodes, as faults are drawn for them.
    async fn seen(&mut self) -> Vec<Seen> {
        // Links learn from it who is called what. What it says of leaders is what the node knows that answers, of groups that it has.
        let _ = self.cluster.list().await;
        let leaders = self.leaders.lock();
        let seen = self.cluster.machines.iter().map(|machine| Seen {
            name: machine.name.clone(),
            leads: leaders.led_by(&machine.name),
            is_founder: machine.is_founder,
        });
        seen.collect()
    }

    /// One round, from well to well.
    pub(super) async fn round(&mut self, plan: &Plan) -> Result<(), Ended> {
        let seen = self.seen().await;
        let round = plan.draw(&mut self.random, &seen);
        self.sleep(round.calm).await?;
        let Round { change, faults, hold, by_reset, compacts, .. } = round;
        let compacts = match compacts {
            Some(part) => self.next_compaction(part).await?,
            None => None,
        };
        let begun = self.now();
        let (mut words, mut deeds) = (Vec::new(), Vec::new());
        let open = match change {
            Some(change) => self.begin(change, &mut words, &mut deeds).await?,
            None => None,
        };
        for fault in &faults {
            let leads = |name: &str| seen.iter().find(|seen| seen.name == name).map_or(0, |seen| seen.leads);
            words.push(words_of(fault, leads));
            deeds.push(Deed::among(fault, seen.len()));
        }
        if let Some(until) = compacts {
            words.push(format!("what is before revision {until} is compacted"));
            deeds.push(Deed::compaction());
        }
        let what = words.join("; ");
        if what.is_empty() {
            return Ok(());
        }
        // Also a round that ends the run is told of.
        self.timeline.push(Entry { what: what.clone(), deeds, begun, healed: None, served: None });
        self.is_holding = true;
        if faults.iter().any(|fault| matches!(fault, Fault::Disk(_, Ailment::Full { .. }))) {
            self.book.scarce_begins();
        }
        for fault in &faults {
            self.inject(fault).await?;
            self.lives.suffered(fault, self.book.now());
        }
        self.say(&what);
        let held = Instant::now();
        if let Some(until) = compacts {
            self.compact(until, hold).await?;
        }
        if !faults.is_empty() {
            self.sleep(hold.saturating_sub(held.elapsed())).await?;
        }
        self.heal(by_reset)?;
        self.healed();
        self.serve().await?;
        self.recover().await?;
        if let Some(open) = open {
            self.finish(open).await?;
            self.serve().await?;
        }
        self.served();
        Ok(())
    }

    /// In the round that is under way all was made well just now.
    pub(super) fn healed(&mut self) {
        let healed = self.now();
        self.note(|entry| entry.healed = Some(healed));
    }

    /// And now all serve.
    pub(super) fn served(&mut self) {
        self.book.scarce_ends();
        let served = self.now();
        self.note(|entry| entry.served = Some(served));
        let acknowledged = self.book.acknowledged();
        let Some(entry) = self.timeline.last() else { return };
        let gap = entry.gap(&acknowledged, served).0 / 1000;
        let later = served.saturating_sub(entry.healed.unwrap_or(served)) as f64 / 1e6;
        self.say(&format!("all serve, {later:.1} s after all was made well; longest write gap {gap} ms"));
    }

    /// Notes something about the round that is under way.
    fn note(&mut self, note: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.timeline.last_mut() {
            note(entry);
        }
    }

    async fn inject(&mut self, fault: &Fault) -> Result<(), Ended> {
        let names: Vec<String> = self.cluster.machines.iter().map(|machine| machine.name.clone()).collect();
        let links = self.cluster.links.clone();
        let link = |from: &str, to: &str| (from.to_owned(), to.to_owned());
        match fault {
            Fault::Power => {
                self.cluster.machines.iter_mut().for_each(|machine| machine.kill());
                for machine in &self.cluster.machines {
                    if let Some(disk) = &machine.disk {
                        disk.ail(&Ailment::PowerLoss(Some(self.random.draw())))?;
                    }
                }
            }
            Fault::Disk(name, ailment) => self.ail(name, ailment).await?,
            Fault::Cut(cut) => links.change(|weather| {
                for (a, b) in cut.iter().flat_map(|a| names.iter().map(move |b| (a, b))) {
                    if !cut.contains(b) {
                        weather.cut.extend([link(a, b), link(b, a)]);
                    }
                }
            }),
            Fault::OneWay(name, is_deaf) => links.change(|weather| {
                let others = names.iter().filter(|other| *other != name);
                let cut = others.map(|other| if *is_deaf { link(other, name) } else { link(name, other) });
                weather.cut.extend(cut);
            }),
            Fault::Partial(a, b, is_mutual) => links.change(|weather| {
                weather.cut.insert(link(a, b));
                if *is_mutual {
                    weather.cut.insert(link(b, a));
                }
            }),
            Fault::Slow(name, late) => links.change(|weather| {
                for other in names.iter().filter(|other| *other != name) {
                    weather.slow.insert(link(name, other), *late);
                    weather.slow.insert(link(other, name), *late);
                }
            }),
            Fault::Kill(name) | Fault::Stop(name) | Fault::Pause(name) | Fault::Wipe(name) => {
                let Some(machine) = self.cluster.named(name) else { return Ok(()) };
                match fault {
                    Fault::Pause(_) => machine.pause(),
                    Fault::Stop(_) => {
                        if let Err(problem) = machine.stop(STOP_MAX).await {
                            return Err(self.wrong(problem));
                        }
                    }
                    Fault::Wipe(_) => machine.wipe()?,
                    _ => machine.kill(),
                }
            }
        }
        Ok(())
    }

    /// Makes all well again.
    pub(super) fn heal(&mut self, by_reset: bool) -> Result<(), Ended> {
        self.cluster.links.mend(by_reset);
        self.is_holding = false;
        for disk in self.cluster.machines.iter().filter_map(|machine| machine.disk.as_ref()) {
            disk.mend();
        }
        let now = self.now();
        self.lives.mended(now);
        let absent = self.cluster.absent.clone();
        for machine in &mut self.cluster.machines {
            match machine.state {
                // One that is away for longer.
                State::Down if Some(&machine.name) == absent.as_ref() => {}
                State::Running => {}
                State::Paused => {
                    machine.resume();
                    self.lives.end(&machine.name, Condition::Paused, now);
                }
                State::Down => {
                    machine.start()?;
                    self.lives.started(&machine.name, now);
                }
            }
        }
        Ok(())
    }

    /// Gives an order about nodes; whether it was taken. One that may have been carried out is given again.
    pub(super) async fn order(&mut self, order: Value) -> Result<bool, Ended> {
        self.order_at("/nodes", order).await
    }

    /// The same at another path.
    pub(super) async fn order_at(&mut self, path: &str, order: Value) -> Result<bool, Ended> {
        let begun = Instant::now();
        loop {
            match self.cluster.ask(Method::POST, path, &order).await {
                Ok((200 | 202, _)) => return Ok(true),
                Ok((_, answer)) => {
                    self.say(&format!("{order} is refused: {}", answer["error"]));
                    return Ok(false);
                }
                Err(problem) if begun.elapsed() > self.patience => {
                    return Err(
                        self.wrong(format!("{order}: no answer after {:?}: {problem}", self.patience))
                    );
                }
                Err(_) => tokio::time::sleep(LOOK).await,
            }
        }
    }
}

fn words_of(fault: &Fault, leads: impl Fn(&str) -> u64) -> String {
    let node = |name: &String| match leads(name) {
        0 => name.clone(),
        groups => format!("{name} (leads {groups} groups)"),
    };
    match fault {
        Fault::Kill(name) => format!("kill -9 of {}", node(name)),
        Fault::Stop(name) => format!("SIGTERM for {}", node(name)),
        Fault::Pause(name) => format!("SIGSTOP of {}", node(name)),
        Fault::Cut(names) => {
            format!("{} cut off", names.iter().map(node).collect::<Vec<_>>().join(" and "))
        }
        Fault::OneWay(name, true) => format!("{} hears nobody", node(name)),
        Fault::OneWay(name, false) => format!("nobody hears {}", node(name)),
        Fault::Partial(a, b, true) => format!("{} and {} do not hear each other", node(a), node(b)),
        Fault::Partial(a, b, false) => format!("{} does not hear {}", node(b), node(a)),
        Fault::Slow(name, late) => format!("{} is {} ms away", node(name), late.as_millis()),
        Fault::Wipe(name) => format!("{} loses its data", node(name)),
        Fault::Disk(name, ailment) => ailment.text(&node(name)),
        Fault::Power => "kill -9 of all".to_owned(),
    }
}
