//! Times of day and spans, read and written.

use std::time::Duration;

/// A span: a number and s, m, h or d.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let problem = || format!("«{text}» is not a time; say 90s, 15m, 2h or 7d");
    let unit = text.chars().last().ok_or_else(problem)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(problem()),
    };
    let count: u64 = text[..text.len() - unit.len_utf8()].parse().map_err(|_| problem())?;
    count.checked_mul(seconds).map(Duration::from_secs).ok_or_else(problem)
}

/// Milliseconds since 1970 as date and time of day, UTC.
pub(super) fn shown(millis: u64) -> String {
    rfc3339(millis).replace('T', " ").trim_end_matches('Z').to_owned()
}

/// The same, for programs.
pub(super) fn rfc3339(millis: u64) -> String {
    let (days, rest) = (millis / 86_400_000, millis % 86_400_000);
    let (year, month, day) = date(days);
    let (seconds, millis) = (rest / 1_000, rest % 1_000);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// Year, month and day of a day since 1970-01-01. Years begin in March here, so that the day that may be missing is the last (Hinnant, "chrono-compatible
/// low-level date algorithms", `civil_from_days`).
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_their_dates() {
        let check = |seconds: u64, expected: &str| assert_eq!(rfc3339(seconds * 1_000 + 7), expected);
        check(0, "1970-01-01T00:00:00.007Z");
        check(951_782_400, "2000-02-29T00:00:00.007Z");
        check(1_709_251_199, "2024-02-29T23:59:59.007Z");
        check(4_107_542_400, "2100-03-01T00:00:00.007Z");
        assert_eq!(shown(1_000), "1970-01-01 00:00:01.000");
    }

    #[test]
    fn spans_are_numbers_with_a_unit() {
        let check = |text: &str, seconds: Option<u64>| {
            assert_eq!(parse(text).ok(), seconds.map(Duration::from_secs), "{text}");
        };
        check("90s", Some(90));
        check("15m", Some(900));
        check("2h", Some(7_200));
        check("7d", Some(604_800));
        for nonsense in
            ["", "s", "2", "2w", "-1s", "1.5h", "2é", "99999999999999999999d", "9999999999999999d"]
        {
            check(nonsense, None);
        }
    }
}
