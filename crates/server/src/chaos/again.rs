//! The command that draws the same faults once more.

use super::Chaos;
use super::guest::Guest;

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
    pub(super) fn again(&self, seed: u64, guest: Option<&Guest>) -> String {
        let mut words = vec!["quorate".to_owned()];
        if let Some(guest) = guest {
            words.extend(["--endpoints".to_owned(), guest.endpoints.join(",")]);
        }
        words.push("chaos".to_owned());
        let mut say = |flag: &str, value: String| words.extend([flag.to_owned(), value]);
        say("--seed", seed.to_string());
        say("--duration", format!("{}s", self.duration.as_secs()));
        say("--nodes", self.nodes.to_string());
        say("--partitions", self.partitions.to_string());
        say("--replicas", self.replicas.to_string());
        say("--clients", self.clients.to_string());
        say("--rate", self.rate.to_string());
        if !self.faults.is_empty() {
            let kinds: Vec<String> = self.faults.iter().map(|kind| kind.name()).collect();
            say("--faults", kinds.join(","));
        }
        if let Some(max) = self.faults_max {
            say("--faults-max", max.to_string());
        }
        say("--hold", self.hold.to_string());
        say("--calm", self.calm.to_string());
        say("--grace-period", self.grace_period.to_string());
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

    /// What is said again is understood as it was meant.
    #[test]
    fn a_command_says_itself() {
        let check = |line: &str| {
            let words = ["chaos"].into_iter().chain(line.split(' ').filter(|word| !word.is_empty()));
            let once = Line::parse_from(words).chaos;
            let command = once.again(7, None);
            let words = command.split(' ').skip(1).map(|word| word.trim_matches('\''));
            let again = Line::parse_from(words).chaos;
            assert_eq!(again.seed, Some(7));
            assert_eq!(format!("{:?}", Chaos { seed: once.seed, ..again }), format!("{once:?}"), "{command}");
        };
        check("");
        check(
            "--duration 2m --faults kill,one-way --faults-max 3 --nodes 7 --rate 20 --hold 200ms..2s --calm 1s",
        );
        check("--seed 9 --patience 5 -- --election-timeout 700 --pin a*b");
    }

    #[test]
    fn a_shell_reads_one_word() {
        assert_eq!(quoted("a=b,c:1"), "a=b,c:1");
        assert_eq!(quoted("it's $HOME"), r"'it'\''s $HOME'");
        assert_eq!(quoted(""), "''");
    }
}
