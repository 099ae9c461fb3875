//! lease grant, revoke, keep-alive, timetolive, list.

use super::{CliError, Target, shown};
use clap::Subcommand;
use quorate_api::pb;
use serde_json::json;

/// Leases: keys that go away when their holder does
#[derive(Subcommand, Debug)]
pub enum Lease {
    /// Begin a lease
    Grant {
        /// Seconds it lives without being kept alive
        ttl: i64,
    },
    /// End a lease and delete its keys
    Revoke {
        /// Its id
        #[arg(value_parser = parse_id)]
        lease: i64,
    },
    /// Start its time to live anew, once
    KeepAlive {
        /// Its id
        #[arg(value_parser = parse_id)]
        lease: i64,
    },
    /// How long it has left
    Timetolive {
        /// Its id
        #[arg(value_parser = parse_id)]
        lease: i64,
        /// List its keys
        #[arg(long)]
        keys: bool,
    },
    /// All leases
    List,
}

/// A lease id as it is printed: hexadecimal.
pub fn parse_id(text: &str) -> Result<i64, String> {
    u64::from_str_radix(text.trim_start_matches("0x"), 16)
        .map(|id| id as i64)
        .map_err(|_| format!("«{text}» is not a lease id, which is a hexadecimal number"))
}

impl Lease {
    /// Carries it out.
    pub async fn run(self, target: &Target) -> Result<(), CliError> {
        let mut client = pb::lease_client::LeaseClient::new(target.line().await?);
        let (table, value) = match self {
            Self::Grant { ttl } => {
                let response = client.lease_grant(pb::LeaseGrantRequest { ttl, id: 0 }).await?.into_inner();
                let line = format!("lease {:x} granted with TTL({}s)", response.id, response.ttl);
                (line, json!({"id": format!("{:x}", response.id), "ttl": response.ttl}))
            }
            Self::Revoke { lease } => {
                client.lease_revoke(pb::LeaseRevokeRequest { id: lease }).await?;
                (format!("lease {lease:x} revoked"), json!({"id": format!("{lease:x}")}))
            }
            Self::KeepAlive { lease } => {
                let request = tokio_stream::once(pb::LeaseKeepAliveRequest { id: lease });
                let mut answers = client.lease_keep_alive(request).await?.into_inner();
                let ttl = answers.message().await?.map_or(0, |answer| answer.ttl);
                if ttl <= 0 {
                    return Err(CliError::Usage(format!("lease {lease:x} expired or revoked")));
                }
                (
                    format!("lease {lease:x} kept alive with TTL({ttl}s)"),
                    json!({"id": format!("{lease:x}"), "ttl": ttl}),
                )
            }
            Self::Timetolive { lease, keys } => {
                let request = pb::LeaseTimeToLiveRequest { id: lease, keys };
                let response = client.lease_time_to_live(request).await?.into_inner();
                let names: Vec<String> = response.keys.iter().map(|key| shown(key)).collect();
                let line = if response.ttl < 0 {
                    format!("lease {lease:x} is unknown or has expired")
                } else {
                    let rest = if keys { format!(", keys: {}", names.join(" ")) } else { String::new() };
                    format!(
                        "lease {lease:x} granted with TTL({}s), remaining({}s){rest}",
                        response.granted_ttl, response.ttl
                    )
                };
                let body = json!({"id": format!("{lease:x}"), "ttl": response.ttl, "granted_ttl": response.granted_ttl, "keys": names});
                (line, body)
            }
            Self::List => {
                let response = client.lease_leases(pb::LeaseLeasesRequest {}).await?.into_inner();
                let ids: Vec<String> =
                    response.leases.iter().map(|lease| format!("{:x}", lease.id)).collect();
                (format!("{} leases\n{}", ids.len(), ids.join("\n")), json!({"leases": ids}))
            }
        };
        if target.is_json() {
            println!("{value}");
        } else {
            println!("{}", table.trim_end());
        }
        Ok(())
    }
}
