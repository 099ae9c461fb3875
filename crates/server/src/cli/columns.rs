//! Words in columns, for tables on a terminal.

/// A text in so many columns at most. What could move a cursor is not passed on.
pub(crate) fn fit(text: &str, columns: usize) -> String {
    let plain = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    match text.chars().count() <= columns {
        true => text.chars().map(plain).collect(),
        false => text.chars().take(columns.saturating_sub(1)).map(plain).chain(['…']).take(columns).collect(),
    }
}

/// With a comma after each thousand.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// So many of something.
pub(crate) fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// A name's runs of digits as numbers, so that n10 comes after n9.
pub(crate) fn natural(name: &str) -> Vec<(String, u64)> {
    let mut parts = vec![(String::new(), 0_u64)];
    let mut was_digit = false;
    for c in name.chars() {
        let digit = c.to_digit(10);
        if was_digit && digit.is_none() {
            parts.push((String::new(), 0));
        }
        if let Some((text, number)) = parts.last_mut() {
            match digit {
                Some(digit) => *number = number.saturating_mul(10).saturating_add(u64::from(digit)),
                None => text.push(c),
            }
        }
        was_digit = digit.is_some();
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_told_apart() {
        let check = |number, expected: &str| assert_eq!(grouped(number), expected);
        check(0, "0");
        check(999, "999");
        check(1_000, "1,000");
        check(1_234_567, "1,234,567");
    }

    #[test]
    fn what_is_too_long_is_cut() {
        let check = |text: &str, columns, expected: &str| assert_eq!(fit(text, columns), expected);
        check("node", 4, "node");
        check("nodes", 4, "nod…");
        check("nodes", 1, "…");
        check("nodes", 0, "");
        check("a\u{1b}[2Jb", 8, "a\u{fffd}[2Jb");
        assert_eq!((counted(1, "node"), counted(2, "node")), ("1 node".into(), "2 nodes".into()));
    }

    #[test]
    fn numbers_in_names_are_numbers() {
        let mut names = ["n10", "n9", "a", "n9b", "9", "n"];
        names.sort_by_key(|name| natural(name));
        assert_eq!(names, ["9", "a", "n", "n9", "n9b", "n10"]);
    }
}
