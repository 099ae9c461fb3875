//! Orders as lines of text, for the program.
//!
//! ```text
//! fault CALLS PATH EFFECT [TIMES]   adds a rule; answers its number
//!     CALLS   read | write | sync | name | any
//!     EFFECT  fail eio | fail enospc | fail erofs | delay MILLISECONDS | hang | short BYTES
//!             | flip OFFSET MASK | lose | misdirect PAGES
//! clear [NUMBER]                    takes one rule away, or all
//! rules                             one line a rule: number, rule, how often it applied
//! capacity BYTES | capacity none    how much fits
//! flip PATH OFFSET MASK             flips bits on disk; answers in how many files
//! zero PATH OFFSET LENGTH           writes zeros on disk, likewise
//! power-failure [SEED]              everything unsynced is lost, or with a seed some of it
//! sync                              makes everything durable
//! status                            bytes used, calls that hang
//! ```
//!
//! Every line is answered by one that begins with `ok` or `error`; `rules` by its lines before that. Numbers are decimal.

use crate::disk::Controls;
use crate::faults::{Effect, On, Rule, RuleId};
use crate::power::Unsynced;
use rustix::io::Errno;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::str::FromStr;
use std::time::Duration;

/// The longest line.
const LINE_BYTES_MAX: u64 = 4096;

/// Takes orders at a socket, each connection on a thread of its own, for as long as the process lives.
pub fn listen(listener: UnixListener, controls: Controls) {
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let controls = controls.clone();
            // One that breaks concerns nobody else.
            std::thread::spawn(move || converse(&stream, &controls));
        }
    });
}

fn converse(stream: &UnixStream, controls: &Controls) -> io::Result<()> {
    let mut lines = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if (&mut lines).take(LINE_BYTES_MAX).read_line(&mut line)? == 0 {
            return Ok(());
        }
        let answer = obey(&line, controls).unwrap_or_else(|why| format!("error {why}"));
        writeln!(&mut &*stream, "{answer}")?;
    }
}

fn number<T: FromStr>(words: &[&str], at: usize, what: &str) -> Result<T, String> {
    let word = words.get(at).ok_or_else(|| format!("{what} is missing"))?;
    word.parse().map_err(|_| format!("{what} is not a number: {word}"))
}

/// Carries out one line; the answer.
pub fn obey(line: &str, controls: &Controls) -> Result<String, String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let said = |error: io::Error| error.to_string();
    let path = || words.get(1).copied().ok_or_else(|| "PATH is missing".to_owned());
    match words.first().copied().unwrap_or("") {
        "fault" => Ok(format!("ok {}", controls.faults().add(rule(&words[1..])?).0)),
        "clear" if words.len() == 1 => {
            controls.faults().clear_all();
            Ok("ok".into())
        }
        "clear" => match controls.faults().clear(RuleId(number(&words, 1, "NUMBER")?)) {
            true => Ok("ok".into()),
            false => Err("there is no such rule".into()),
        },
        "rules" => {
            let mut lines: Vec<String> = controls.faults().list().iter().map(told).collect();
            lines.push("ok".into());
            Ok(lines.join("\n"))
        }
        "capacity" => {
            let is_none = words.get(1) == Some(&"none");
            controls.set_capacity(if is_none { None } else { Some(number(&words, 1, "BYTES")?) });
            Ok("ok".into())
        }
        "flip" => {
            let flipped = controls.flip(path()?, number(&words, 2, "OFFSET")?, number(&words, 3, "MASK")?);
            Ok(format!("ok {}", flipped.map_err(said)?))
        }
        "zero" => {
            let zeroed = controls.zero(path()?, number(&words, 2, "OFFSET")?, number(&words, 3, "LENGTH")?);
            Ok(format!("ok {}", zeroed.map_err(said)?))
        }
        "power-failure" => {
            let unsynced = match words.len() {
                1 => Unsynced::Lost,
                _ => Unsynced::Some(number(&words, 1, "SEED")?),
            };
            controls.power_failure(unsynced).map_err(said)?;
            Ok("ok".into())
        }
        "sync" => {
            controls.sync_all().map_err(said)?;
            Ok("ok".into())
        }
        "status" => Ok(format!("ok {} {}", controls.used(), controls.faults().hanging())),
        other => Err(format!(
            "{other:?} is no order: fault, clear, rules, capacity, flip, zero, power-failure, sync or status"
        )),
    }
}

fn rule(words: &[&str]) -> Result<Rule, String> {
    let on = match words.first().copied().unwrap_or("") {
        "read" => On::Read,
        "write" => On::Write,
        "sync" => On::Sync,
        "name" => On::Name,
        "any" => On::Any,
        other => return Err(format!("{other:?} are no calls: read, write, sync, name or any")),
    };
    let path = (*words.get(1).ok_or("PATH is missing")?).to_owned();
    let (effect, next) = match words.get(2).copied().unwrap_or("") {
        "fail" => match words.get(3).copied().unwrap_or("") {
            "eio" => (Effect::Fail(Errno::IO), 4),
            "enospc" => (Effect::Fail(Errno::NOSPC), 4),
            "erofs" => (Effect::Fail(Errno::ROFS), 4),
            other => return Err(format!("{other:?} is no error: eio, enospc or erofs")),
        },
        "delay" => (Effect::Delay(Duration::from_millis(number(words, 3, "MILLISECONDS")?)), 4),
        "hang" => (Effect::Hang, 3),
        "short" => (Effect::Short(number::<usize>(words, 3, "BYTES")?.max(1)), 4),
        "flip" => (Effect::Flip { offset: number(words, 3, "OFFSET")?, mask: number(words, 4, "MASK")? }, 5),
        "lose" => (Effect::Lose, 3),
        "misdirect" => (Effect::Misdirect(number(words, 3, "PAGES")?), 4),
        other => {
            return Err(format!("{other:?} is no effect: fail, delay, hang, short, flip, lose or misdirect"));
        }
    };
    let times = if words.len() > next { Some(number(words, next, "TIMES")?) } else { None };
    Ok(Rule { on, path, times, effect })
}

fn told((id, rule, hits): &(RuleId, Rule, u64)) -> String {
    let times = rule.times.map_or("always".to_owned(), |times| format!("{times} times"));
    format!("{} {:?} {} {:?} {times}, applied {hits}", id.0, rule.on, rule.path, rule.effect)
}
