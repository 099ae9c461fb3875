//! watch.

use super::{CliError, Target, prefix_end, shown};
use clap::Args;
use quorate_api::{mvccpb, pb};
use serde_json::json;

/// Follow changes of keys until Ctrl-C
#[derive(Args, Debug)]
pub struct Watch {
    /// The key; with --prefix, what keys begin with
    key: String,
    /// All keys that begin with KEY
    #[arg(long)]
    prefix: bool,
    /// From this revision on, instead of now
    #[arg(long, default_value_t = 0)]
    rev: i64,
    /// Show what was there before each change
    #[arg(long)]
    prev: bool,
}

impl Watch {
    /// Carries it out.
    pub async fn run(self, target: &Target) -> Result<(), CliError> {
        let mut client = pb::watch_client::WatchClient::new(target.line_patiently().await?);
        let create = pb::WatchCreateRequest {
            range_end: if self.prefix { prefix_end(self.key.as_bytes()).into() } else { Default::default() },
            key: self.key.into(),
            start_revision: self.rev,
            prev_kv: self.prev,
            ..Default::default()
        };
        let request =
            pb::WatchRequest { request_union: Some(pb::watch_request::RequestUnion::CreateRequest(create)) };
        let mut responses = client.watch(tokio_stream::once(request)).await?.into_inner();
        loop {
            let response = tokio::select! {
                response = responses.message() => response?,
                _ = tokio::signal::ctrl_c() => return Ok(()),
            };
            let Some(response) = response else { return Ok(()) };
            if response.canceled {
                let problem = match response.compact_revision {
                    0 => response.cancel_reason,
                    oldest => {
                        format!("history before revision {oldest} is compacted; use --rev {oldest} or later")
                    }
                };
                return Err(CliError::Usage(format!("the watch was cancelled: {problem}")));
            }
            for event in response.events {
                show(target, &event);
            }
        }
    }
}

fn show(target: &Target, event: &mvccpb::Event) {
    let Some(pair) = &event.kv else { return };
    let is_put = event.r#type == mvccpb::event::EventType::Put as i32;
    let kind = if is_put { "PUT" } else { "DELETE" };
    if target.is_json() {
        let previous = event.prev_kv.as_ref().map(super::kv::pair_json);
        println!("{}", json!({"type": kind, "kv": super::kv::pair_json(pair), "prev_kv": previous}));
        return;
    }
    println!("{kind}");
    if let Some(previous) = &event.prev_kv {
        println!("{}\n{}", shown(&previous.key), shown(&previous.value));
    }
    println!("{}\n{}", shown(&pair.key), shown(&pair.value));
}
