//! Which dependencies there may be: from the crates registry, permissively licensed, none that was ruled out.

use serde_json::Value;
use std::process::Command;

const ALLOWED: [&str; 15] = [
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "MIT",
    "MIT-0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "Unicode-3.0",
    "CC0-1.0",
    "0BSD",
    "BSL-1.0",
    "Unlicense",
    "CDLA-Permissive-2.0",
    "OpenSSL",
];

/// Need more than a C compiler, or were weighed and left.
const BANNED: [&str; 5] = ["openssl-sys", "native-tls", "protobuf", "cmake", "bindgen"];

/// Checks every package that the lock file names.
pub(crate) fn check() -> Result<(), String> {
    let output = Command::new("cargo")
        .args(["metadata", "--format-version", "1", "--locked"])
        .output()
        .map_err(|error| format!("cannot run cargo metadata: {error}"))?;
    if !output.status.success() {
        return Err(format!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let metadata: Value =
        serde_json::from_slice(&output.stdout).map_err(|error| format!("cargo metadata: {error}"))?;
    let packages = metadata["packages"].as_array().ok_or("cargo metadata names no packages")?;
    let mut problems = Vec::new();
    for package in packages {
        let text = |field: &str| package[field].as_str().unwrap_or("");
        let (name, licence, source) = (text("name"), text("license"), text("source"));
        if BANNED.contains(&name) {
            problems.push(format!("{name} is ruled out"));
        }
        if !source.is_empty() && !source.starts_with("registry+") {
            problems.push(format!("{name} comes from {source}, not from the crates registry"));
        }
        if !is_allowed(licence) {
            problems.push(format!("{name} has the licence «{licence}», which is not on the list"));
        }
    }
    println!("{} packages, {} problems", packages.len(), problems.len());
    if problems.is_empty() { Ok(()) } else { Err(problems.join("\n")) }
}

/// Whether an SPDX expression can be met with licences on the list. "/" is an old way to write OR.
fn is_allowed(expression: &str) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    let is_met = alternatives(&words, &mut at);
    is_met && at == words.len()
}

fn alternatives(words: &[&str], at: &mut usize) -> bool {
    let mut is_met = requirements(words, at);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        is_met |= requirements(words, at);
    }
    is_met
}

fn requirements(words: &[&str], at: &mut usize) -> bool {
    let mut is_met = licence(words, at);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        is_met &= licence(words, at);
    }
    is_met
}

fn licence(words: &[&str], at: &mut usize) -> bool {
    match words.get(*at) {
        Some(&"(") => {
            *at += 1;
            let is_met = alternatives(words, at);
            *at += 1;
            is_met
        }
        Some(name) => {
            *at += 1;
            if words.get(*at) == Some(&"WITH") {
                let whole = format!("{name} WITH {}", words.get(*at + 1).unwrap_or(&""));
                *at += 2;
                return ALLOWED.contains(&whole.as_str());
            }
            ALLOWED.contains(name)
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_read() {
        assert!(is_allowed("MIT OR Apache-2.0"));
        assert!(is_allowed("GPL-3.0 OR MIT"));
        assert!(is_allowed("(MIT OR GPL-2.0) AND Zlib"));
        assert!(is_allowed("Apache-2.0 WITH LLVM-exception"));
        assert!(is_allowed("MIT/Apache-2.0"));
        assert!(!is_allowed("MIT AND GPL-3.0"));
        assert!(!is_allowed("MPL-2.0"));
        assert!(!is_allowed(""));
    }
}
