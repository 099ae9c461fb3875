//! The command that draws the same faults once more.

use super::Chaos;
use super::guest::Guest;
use super::plan::Kind;

/// What a shell takes as it is.
fn is_plain(word: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=.,:/@+".contains(c);
    !word.is_empty() && word.chars().all(plain)
}

/// As a shell reads it as one word.
fn quoted(word: &str) -> String {
    if is_plain(word) { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

impl Chaos {
    /// The command. Where to write what is left to whoever runs it.
    /// The kinds are those that were drawn from: which there are if nothing is said depends on the machine.
    pub(super) fn again(&self, seed: u64, kinds: &[Kind], guest: Option<&Guest>) -> String {
        let mut words = vec!["quorate".to_owned()];
        if let Some(guest) = guest {
            words.extend(["--endpoints".to_owned(), guest.endpoints.join(",")]);
        }
        words.push("chaos".to_owned());
        let mut say = |flag: &str, value: String| words.extend([flag.to_owned(), value]);
        say("--seed", seed.to_string());
        say("--duration", format!("{}s", self.duration.as_secs()));
        if guest.is_none() {
            say("--nodes", self.nodes().to_string());
            say("--partitions", self.partitions().to_string());
            say("--replicas", self.replicas().to_string());
            say("--grace-period", self.grace_period().to_string());
        }
        say("--clients", self.clients.to_string());
        say("--rate", self.rate.to_string());
        if !kinds.is_empty() {
            let kinds: Vec<String> = kinds.iter().map(|kind| kind.name()).collect();
            say("--faults", kinds.join(","));
        }
        if let Some(max) = self.faults_max {
            say("--faults-max", max.to_string());
        }
        say("--hold", self.hold.to_string());
        say("--calm", self.calm.to_string());
        say("--patience", self.patience.to_string());
        if let Some(guest) = guest {
            say("--prefix", guest.prefix.clone());
            if let Some(command) = &guest.inject {
                say("--inject", command.clone());
            }
        }
        if !self.settings.is_empty() {
            words.push("--".into());
            words.extend(self.settings.iter().cloned());
        }
        words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        chaos: Chaos,
    }

    fn parsed(line: &str) -> Chaos {
        let words = ["chaos"].into_iter().chain(line.split(' ').filter(|word| !word.is_empty()));
        Line::parse_from(words).chaos
    }

    /// The command, parsed.
    fn said_again(once: &Chaos, kinds: &[Kind], guest: Option<&Guest>) -> (String, Chaos) {
        let command = once.again(7, kinds, guest);
        let words =
            command.split(' ').skip_while(|word| *word != "chaos").map(|word| word.trim_matches('\''));
        let again = Line::parse_from(words).chaos;
        (command, again)
    }

    /// What is said again is understood as it was meant.
    #[test]
    fn a_command_says_itself() {
        let check = |line: &str, usual: &str| {
            let meant = parsed(&format!("{usual} {line}"));
            let once = parsed(line);
            let (command, again) = said_again(&once, &meant.faults, None);
            assert_eq!(again.seed, Some(7));
            assert_eq!(
                format!("{:?}", Chaos { seed: meant.seed, ..again }),
                format!("{meant:?}"),
                "{command}"
            );
        };
        let sizes = "--nodes 5 --partitions 8 --replicas 3 --grace-period 5";
        // Which faults there are if nothing is said depends on the machine, and is said.
        check("", &format!("{sizes} --faults kill,rot"));
        let many = "--partitions 4 --replicas 5 --nodes 7 --grace-period 9";
        check(
            &format!(
                "--duration 2m --faults kill,one-way --faults-max 3 --rate 20 --hold 200ms..2s --calm 1s {many}"
            ),
            "",
        );
        check("--seed 9 --patience 5 --faults kill -- --election-timeout 700 --pin a*b", sizes);
    }

    /// And taken in a cluster of others, where less can be said.
    #[test]
    fn a_guest_says_what_a_guest_may_say() {
        for faults in ["", "--faults kill,pause --inject ./f"] {
            let once = parsed(faults);
            let endpoints = vec!["a:1".to_owned()];
            let guest = once.guest(Some(endpoints.clone())).unwrap().unwrap();
            let (command, again) = said_again(&once, &once.faults, Some(&guest));
            assert!(command.starts_with("quorate --endpoints a:1 chaos --seed 7 "), "{command}");
            assert_eq!(again.guest(Some(endpoints)).unwrap().unwrap().inject, guest.inject);
            assert_eq!(again.faults, once.faults);
        }
    }

    #[test]
    fn a_shell_reads_one_word() {
        assert_eq!(quoted("a=b,c:1"), "a=b,c:1");
        assert_eq!(quoted("it's $HOME"), r"'it'\''s $HOME'");
        assert_eq!(quoted(""), "''");
    }
}
