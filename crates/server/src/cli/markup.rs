//! What pictures and pages are written with: colours of ink, numbers, and text that is only text.

/// What is read.
pub(crate) const INK: &str = "#1f2933";
/// What is said beside it.
pub(crate) const GREY: &str = "#697586";
/// What is hardly there.
pub(crate) const FAINT: &str = "#e4e7eb";
/// What is wrong.
pub(crate) const ALARM: &str = "#d64545";
/// What is under way.
pub(crate) const MOVING: &str = "#e0a100";

/// Two digits behind the point, none that say nothing.
pub(crate) fn number(value: f64) -> String {
    let text = format!("{value:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".into() } else { text.to_owned() }
}

/// Text in which nothing is a tag, nor ends an attribute.
pub(crate) fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // XML knows none of these, not even escaped.
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let check = |value: f64, expected: &str| assert_eq!(number(value), expected);
        check(0.0, "0");
        check(-0.001, "0");
        check(1.5, "1.5");
        check(100.0, "100");
        check(2.0 / 3.0, "0.67");
    }

    #[test]
    fn text_is_only_text() {
        let check = |text: &str, expected: &str| assert_eq!(escaped(text), expected);
        check("<b a=\"1\" c='2'>&amp;", "&lt;b a=&quot;1&quot; c=&#39;2&#39;&gt;&amp;amp;");
        check("a\u{0}\nb", "a\u{fffd}\u{fffd}b");
    }
}
