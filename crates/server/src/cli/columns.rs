//! Words in columns, for tables on a terminal.

/// A text in so many columns at most. What could move a cursor is not passed on.
pub(super) fn fit(text: &str, columns: usize) -> String {
    let plain = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    match text.chars().count() <= columns {
        true => text.chars().map(plain).collect(),
        false => text.chars().take(columns.saturating_sub(1)).map(plain).chain(['…']).take(columns).collect(),
    }
}

/// So many of something.
pub(super) fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
