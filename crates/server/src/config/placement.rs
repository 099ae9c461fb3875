//! Placement rules as flags say them.

use super::ConfigError;
use quorate_types::{Bytes, Rule, RuleError, Rules};

/// The placement rules that are asked for; `None` when none are, which is not the same as asking for no rules.
pub(crate) fn rules(
    pins: Option<&[String]>,
    spreads: Option<&[String]>,
) -> Result<Option<Rules>, ConfigError> {
    if pins.is_none() && spreads.is_none() {
        return Ok(None);
    }
    let pin = |prefix: &String| Rule::Pin { prefix: Bytes::from(prefix.clone()) };
    let mut rules: Vec<Rule> = pins.unwrap_or_default().iter().map(pin).collect();
    for text in spreads.unwrap_or_default() {
        let parts = text.rsplit_once(':');
        let Some((directory, Ok(bits))) = parts.map(|(directory, bits)| (directory, bits.parse::<u8>()))
        else {
            let problem = format!("«{text}» is not DIRECTORY:BITS, as in jobs/:4");
            return Err(ConfigError::Senseless { flag: "spread", problem });
        };
        rules.push(Rule::Spread { directory: Bytes::from(directory.to_owned()), bits });
    }
    let is_pin = rules.iter().all(|rule| matches!(rule, Rule::Pin { .. }));
    let flag = if is_pin { "pin" } else { "spread" };
    let refused = |error: RuleError| ConfigError::Senseless { flag, problem: error.to_string() };
    Rules::new(rules).map(Some).map_err(refused)
}

/// The pins as --pin says them.
pub(super) fn pins(rules: &Rules) -> Vec<String> {
    let prefix = |rule: &Rule| match rule {
        Rule::Pin { prefix } => Some(String::from_utf8_lossy(prefix).into_owned()),
        Rule::Spread { .. } => None,
    };
    rules.list().iter().filter_map(prefix).collect()
}

/// The spreads as --spread says them.
pub(super) fn spreads(rules: &Rules) -> Vec<String> {
    let spread = |rule: &Rule| match rule {
        Rule::Pin { .. } => None,
        Rule::Spread { directory, bits } => Some(format!("{}:{bits}", String::from_utf8_lossy(directory))),
    };
    rules.list().iter().filter_map(spread).collect()
}
