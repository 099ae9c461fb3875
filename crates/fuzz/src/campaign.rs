//! Many executions of a target, all from one seed: its seeds and its kept inputs, then mutations of them.
//!
//! A mutation that takes a way through the code that none took before is kept, so that changes add up that lead somewhere. Where the build does not count
//! that, those are kept that are accepted.

use crate::coverage::Coverage;
use crate::execute::{Executor, Outcome};
use crate::mutate::{BYTES_MAX, mutate};
use crate::{Target, corpus};
use quorate_consensus::random::Random;
use std::io;

/// Good inputs that are made to begin with.
const SEEDS: usize = 64;
/// Inputs that are mutated; beyond that new ones take the place of old ones.
const POOL_MAX: usize = 4_096;

/// One target under fuzzing.
#[derive(Debug)]
pub struct Campaign<'a> {
    target: &'a Target,
    executor: &'a Executor,
    random: Random,
    pool: Vec<Vec<u8>>,
    /// How many of the pool stay.
    seeds: usize,
    coverage: Coverage,
    /// The last execution took a way that was new.
    is_new: bool,
    /// What was done so far.
    pub done: Done,
}

/// How much was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Executions.
    pub executions: u64,
    /// Of those, such whose input was read as something.
    pub accepted: u64,
}

/// An input that something is wrong with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The input.
    pub input: Vec<u8>,
    /// What is wrong.
    pub what: String,
}

impl<'a> Campaign<'a> {
    /// Begins one: the same seed gives the same executions.
    pub fn new(target: &'a Target, executor: &'a Executor, seed: u64) -> io::Result<Self> {
        let mut random = Random::new(seed ^ u64::from(crc32c::crc32c(target.name.as_bytes())));
        let mut pool: Vec<Vec<u8>> = (0..SEEDS).map(|_| (target.seed)(&mut random)).collect();
        pool.extend(corpus::of(target.name)?.into_iter().map(|(_, input)| input));
        let seeds = pool.len();
        Ok(Self {
            target,
            executor,
            random,
            pool,
            seeds,
            coverage: Coverage::default(),
            is_new: false,
            done: Done::default(),
        })
    }

    /// Edges of the code that were taken so far, if that is counted.
    pub fn edges(&self) -> Option<usize> {
        Coverage::is_counted().then(|| self.coverage.edges())
    }

    /// Executes what it begins with. A seed that is refused is wrong, too: then what is fuzzed is not what was meant.
    pub fn begin(&mut self) -> Result<(), Failure> {
        for at in 0..self.seeds {
            let input = self.pool[at].clone();
            let is_made = at < SEEDS;
            if self.execute(&input)? == Outcome::Refused && is_made {
                return Err(Failure { input, what: "a good input is refused".into() });
            }
        }
        Ok(())
    }

    /// Executes so many mutations.
    pub fn go_on(&mut self, executions: u64) -> Result<(), Failure> {
        for _ in 0..executions {
            let mut input = self.any();
            let other = self.any();
            mutate(&mut input, &other, &mut self.random);
            // Some stay as they are, to see that checksums are looked at.
            if self.random.between(0, 8) > 0 {
                (self.target.mend)(&mut input);
            }
            let is_accepted = self.execute(&input)? == Outcome::Accepted;
            let is_kept = if Coverage::is_counted() { self.is_new } else { is_accepted };
            if is_kept && input.len() < BYTES_MAX / 8 {
                self.keep(input);
            }
        }
        Ok(())
    }

    fn any(&mut self) -> Vec<u8> {
        let at = self.random.between(0, self.pool.len() as u64) as usize;
        self.pool[at].clone()
    }

    fn keep(&mut self, input: Vec<u8>) {
        if self.pool.len() < POOL_MAX {
            self.pool.push(input);
        } else {
            let at = self.random.between(self.seeds as u64, POOL_MAX as u64) as usize;
            self.pool[at] = input;
        }
    }

    fn execute(&mut self, input: &[u8]) -> Result<Outcome, Failure> {
        self.done.executions += 1;
        let outcome = self.executor.run(self.target, input);
        self.is_new = self.coverage.take();
        match outcome {
            Outcome::Wrong(what) => Err(Failure { input: self.smaller(input.to_vec()), what }),
            outcome => {
                self.done.accepted += u64::from(outcome == Outcome::Accepted);
                Ok(outcome)
            }
        }
    }

    /// Leaves out what is not needed for it to go wrong.
    fn smaller(&self, mut input: Vec<u8>) -> Vec<u8> {
        let mut part = input.len() / 2;
        while part > 0 {
            let mut from = 0;
            while from < input.len() {
                let mut shorter = input.clone();
                shorter.drain(from..input.len().min(from + part));
                (self.target.mend)(&mut shorter);
                if matches!(self.executor.run(self.target, &shorter), Outcome::Wrong(_))
                    && shorter.len() < input.len()
                {
                    input = shorter;
                } else {
                    from += part;
                }
            }
            part /= 2;
        }
        input
    }
}
