//! How long something of a round lasts: drawn anew each time, between two bounds, `200ms..2s`.

use quorate_consensus::random::Random;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A bound is no longer.
const MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// From the least to the most, to the millisecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lasting {
    least: Duration,
    most: Duration,
}

impl Lasting {
    pub(super) const fn millis(least: u64, most: u64) -> Self {
        Self { least: Duration::from_millis(least), most: Duration::from_millis(most) }
    }

    pub(super) fn draw(self, random: &mut Random) -> Duration {
        let [least, most] = [self.least, self.most].map(|bound| bound.as_millis() as u64);
        Duration::from_millis(random.between(least, most + 1))
    }
}

/// As a bound is written: in seconds where that is possible.
fn written(bound: Duration) -> String {
    match bound.as_millis() {
        millis if millis % 1_000 == 0 => format!("{}s", millis / 1_000),
        millis => format!("{millis}ms"),
    }
}

fn bound(text: &str) -> Result<Duration, String> {
    let millis = text.strip_suffix("ms").and_then(|number| number.parse().ok()).map(Duration::from_millis);
    let bound = match millis {
        Some(millis) => millis,
        None => crate::cli::events::time::parse(text)
            .map_err(|_| format!("«{text}» is not a time; say 200ms, 2s or 1m"))?,
    };
    if bound > MAX { Err(format!("{text} is more than a day")) } else { Ok(bound) }
}

impl fmt::Display for Lasting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", written(self.least), written(self.most))
    }
}

impl FromStr for Lasting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // One time is always that.
        let (least, most) = text.split_once("..").unwrap_or((text, text));
        let (least, most) = (bound(least)?, bound(most)?);
        if least > most { Err(format!("{text}: the least comes first")) } else { Ok(Self { least, most }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for (text, expected) in [
            ("200ms..2s", Ok(Lasting::millis(200, 2_000))),
            ("0s..1500ms", Ok(Lasting::millis(0, 1_500))),
            ("3s", Ok(Lasting::millis(3_000, 3_000))),
            ("2s..1s", Err(())),
            ("..1s", Err(())),
            ("1..2", Err(())),
            ("2d", Err(())),
        ] {
            let read: Result<Lasting, String> = text.parse();
            assert_eq!(read.clone().map_err(|_| ()), expected, "{text}");
            if let Ok(read) = read {
                assert_eq!(read.to_string().parse(), Ok(read), "{text}");
            }
        }
    }

    #[test]
    fn both_bounds_are_drawn_and_nothing_beyond() {
        let mut random = Random::new(1);
        let drawn: std::collections::BTreeSet<u64> =
            (0..200).map(|_| Lasting::millis(3, 6).draw(&mut random).as_millis() as u64).collect();
        assert_eq!(drawn, [3, 4, 5, 6].into());
    }
}
