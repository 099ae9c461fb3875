//! Addresses as people write them.

use super::ConfigError;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Whether it is one to listen on only.
pub(crate) fn is_any_address(address: &str) -> bool {
    address.rsplit_once(':').is_some_and(|(host, _)| matches!(host, "0.0.0.0" | "[::]"))
}

/// Whether only this host reaches it.
pub(crate) fn is_loopback(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|host| host.is_loopback())
}

/// How addresses of a port may be written.
pub(super) struct Port {
    is_tls: bool,
    flag: &'static str,
}

impl Port {
    pub(super) fn new(is_tls: bool, flag: &'static str) -> Self {
        Self { is_tls, flag }
    }

    /// HOST:PORT, also when written as a URL as etcd's flags want it. A scheme that promises something else than
    /// what is served is refused.
    pub(super) fn plain_address(&self, flag: &'static str, text: &str) -> Result<String, ConfigError> {
        let trimmed = text.trim();
        let (is_tls, plain) = match (trimmed.strip_prefix("http://"), trimmed.strip_prefix("https://")) {
            (Some(plain), _) => (false, plain),
            (_, Some(plain)) => (true, plain),
            (None, None) => (self.is_tls, trimmed),
        };
        let plain = plain.trim_end_matches('/');
        let is_right = plain.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty() && port.parse::<u16>().is_ok() && !host.contains('/')
        });
        let problem = if !is_right {
            format!("«{text}» is not HOST:PORT")
        } else if is_tls && !self.is_tls {
            format!("«{text}» says TLS, which needs --{}", self.flag)
        } else if self.is_tls && !is_tls {
            format!("«{text}» says no TLS, but --{} is set: write https://, or HOST:PORT", self.flag)
        } else {
            return Ok(plain.to_owned());
        };
        Err(ConfigError::Senseless { flag, problem })
    }
}

pub(super) fn parse_members(text: &str, peers: &Port) -> Result<BTreeMap<String, String>, ConfigError> {
    let flag = "initial-cluster";
    let mut members = BTreeMap::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let Some((name, address)) = part.split_once('=') else {
            let problem = format!("«{part}» is not NAME=HOST:PORT");
            return Err(ConfigError::Senseless { flag, problem });
        };
        let address = peers.plain_address(flag, address)?;
        if members.values().any(|other| *other == address) {
            let problem = format!("the address {address} is there twice");
            return Err(ConfigError::Senseless { flag, problem });
        }
        if members.insert(name.to_owned(), address).is_some() {
            let problem = format!("the name «{name}» is there twice");
            return Err(ConfigError::Senseless { flag, problem });
        }
    }
    Ok(members)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_this_host_are_known() {
        for address in ["127.0.0.1:1", "127.9.9.9:1", "localhost:1", "[::1]:1"] {
            assert!(is_loopback(address), "{address}");
        }
        for address in ["10.0.0.1:1", "node.localhost.example:1", "[fe80::1]:1", "0.0.0.0:1"] {
            assert!(!is_loopback(address), "{address}");
        }
        assert!(is_any_address("0.0.0.0:1") && is_any_address("[::]:1") && !is_any_address("10.0.0.1:1"));
    }
}
