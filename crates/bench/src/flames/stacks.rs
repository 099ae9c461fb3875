//! Stacks that were seen, as a tree from the thread down to what it was in.

use std::collections::BTreeMap;

/// Frames deeper than this say nothing more.
const DEPTH_MAX: usize = 200;
/// What calls this is the same for all that a thread does.
const BEGUN: &str = "__rust_begin_short_backtrace";

/// A frame, with all that was called from it.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// How often it was seen at the end of a stack.
    own: u64,
    pub(super) called: BTreeMap<String, Tree>,
}

impl Tree {
    /// Reads what `perf script -F comm,pid,ip,sym` writes: a line with the thread's name and the process, then a line for each frame, the innermost first, then an
    /// empty one. Below the root stands what `role` says of a process, then the thread.
    pub(super) fn read(text: &str, role: impl Fn(u32) -> &'static str) -> Self {
        let mut tree = Self::default();
        for sample in text.split("\n\n") {
            let mut lines = sample.lines().filter(|line| !line.trim().is_empty());
            let Some((thread, pid)) = lines.next().and_then(|line| line.trim().rsplit_once(' ')) else {
                continue;
            };
            let Ok(pid) = pid.parse() else { continue };
            let mut stack: Vec<String> = lines.filter_map(frame).collect();
            if let Some(begun) = stack.iter().position(|name| name.ends_with(BEGUN)) {
                stack.truncate(begun);
            }
            stack.push(thread.trim().to_owned());
            stack.push(role(pid).to_owned());
            tree.add(stack.iter().rev().take(DEPTH_MAX));
        }
        tree
    }

    fn add<'a>(&mut self, stack: impl Iterator<Item = &'a String>) {
        let mut at = self;
        for name in stack {
            at = at.called.entry(name.clone()).or_default();
        }
        at.own += 1;
    }

    /// How often it was seen, or something that it had called.
    pub(super) fn total(&self) -> u64 {
        self.own + self.called.values().map(Self::total).sum::<u64>()
    }

    /// A line for each stack: its frames with semicolons between them, and how often it was seen.
    pub(super) fn folded(&self) -> String {
        let mut out = String::new();
        self.fold("", &mut out);
        out
    }

    fn fold(&self, above: &str, out: &mut String) {
        if self.own > 0 {
            out.push_str(&format!("{above} {}\n", self.own));
        }
        for (name, below) in &self.called {
            let name = name.replace(';', ",");
            below.fold(&if above.is_empty() { name } else { format!("{above};{name}") }, out);
        }
    }
}

/// The name of a frame from a line of its address and name; none for what has none.
fn frame(line: &str) -> Option<String> {
    let (_, name) = line.trim().split_once(' ')?;
    (name != "[unknown]").then(|| short(name))
}

/// Without the hash that a compiler gives, what types it is of, and all but the last two words of a path.
fn short(name: &str) -> String {
    let name = match name.rsplit_once("::") {
        Some((before, hash)) if hash.len() == 17 && hash.starts_with('h') => before,
        _ => name,
    };
    let plain = if name.starts_with('<') { of_trait(name) } else { name.to_owned() };
    let plain = without_types(&plain);
    let words: Vec<&str> = plain.split("::").filter(|word| !word.is_empty()).collect();
    // Closures are named after what they stand in.
    let closures = words.iter().rev().take_while(|word| word.starts_with("{{")).count();
    let from = words.len().saturating_sub(2 + closures);
    if words.is_empty() { name.to_owned() } else { words[from..].join("::") }
}

/// `Type::method` of `<Type as Trait>::method`, or of `<Type>::method`.
fn of_trait(name: &str) -> String {
    let mut depth = 0;
    for (at, letter) in name.char_indices() {
        depth += i32::from(letter == '<') - i32::from(letter == '>' && !name[..at].ends_with('-'));
        if depth == 0 {
            let (inner, method) = (&name[1..at], &name[at + 1..]);
            return format!("{}{method}", without_types(inner).split(" as ").next().unwrap_or_default());
        }
    }
    name.to_owned()
}

/// Leaves out all that is between `<` and `>`.
fn without_types(name: &str) -> String {
    let (mut out, mut depth, mut before) = (String::new(), 0u32, ' ');
    for letter in name.chars() {
        match letter {
            '<' => depth += 1,
            '>' if before != '-' => depth = depth.saturating_sub(1),
            _ if depth == 0 => out.push(letter),
            _ => {}
        }
        before = letter;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEEN: &str = "\
quorate   12
\t   10 __send
\t   20 quorate::runtime::run::h0123456789abcdef
\t   30 [unknown]
\t   50 std::sys::backtrace::__rust_begin_short_backtrace::h0123456789abcdef
\t   60 main

log thread   12
\t   40 fdatasync

quorate   13
\t   20 quorate::runtime::run::h0123456789abcdef

quorate   12
\t   10 __send
\t   20 quorate::runtime::run::h0123456789abcdef

";

    #[test]
    fn stacks_that_are_the_same_are_counted_together() {
        let tree = Tree::read(SEEN, |pid| if pid == 12 { "leader" } else { "follower" });
        assert_eq!(tree.total(), 4);
        assert_eq!(
            tree.folded(),
            "follower;quorate;runtime::run 1\nleader;log thread;fdatasync 1\nleader;quorate;runtime::run;__send 2\n"
        );
        // What is none is passed over.
        assert_eq!(Tree::read("nonsense\n\n\tmore of it\n\n", |_| "leader").total(), 0);
    }

    #[test]
    fn names_are_short() {
        for (long, expected) in [
            ("__send", "__send"),
            ("a::b::c::h0123456789abcdef", "b::c"),
            ("<a::B<C, D> as e::F<G>>::call::h0123456789abcdef", "B::call"),
            ("<fn(u8) -> u8 as core::ops::FnOnce>::call_once", "fn(u8) -> u8::call_once"),
            ("a::run::{{closure}}::{{closure}}", "a::run::{{closure}}::{{closure}}"),
            ("core::ptr::drop_in_place<alloc::vec::Vec<u8>>", "ptr::drop_in_place"),
            ("<", "<"),
        ] {
            assert_eq!(short(long), expected, "{long}");
        }
    }
}
