//! A node dies for good and others take over what it had; a new one joins. Meanwhile everybody writes on.

use super::nodes::Process;
use super::writers::Progress;
use crate::cli::Target;
use crate::cli::node::{self, List};
use crate::services::nodes::WantedOrder;
use std::path::Path;
use std::time::{Duration, Instant};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(200);
/// How long a step may take.
const STEP_MAX: Duration = Duration::from_secs(120);
/// Nothing moves when nothing has for so many looks.
const LOOKS_STILL: u32 = 10;

/// Kills the node at `at` for good, waits until nothing is missing any more, and has another join.
pub(super) async fn lose_and_join(
    nodes: &mut Vec<Process>,
    target: &mut Target,
    at: usize,
    progress: &Progress,
    begun: Instant,
) -> Result<(), String> {
    let say = |what: String| println!("{:>6.1} s  {what}", begun.elapsed().as_secs_f64());
    let before = looked(target).await?;
    let mut lost = nodes.remove(at);
    target.endpoints.remove(at);
    let name = lost.name.clone();
    let had = before.named(&name).map_or(0, |told| told.replicas);
    progress.forget_gaps();
    lost.lose()?;
    let killed = Instant::now();
    say(format!("kill -9 of {name} for good, with its disk: {had} replicas of partitions are gone"));
    until(target, &format!("{name} is taken for lost"), |list| {
        list.named(&name).is_some_and(|told| told.standing == "lost")
    })
    .await?;
    let gap = progress.longest_gap().as_millis();
    say(format!("{name} is taken for lost; no write was acknowledged for {gap} ms when it died"));
    until(target, &format!("others have what {name} had"), |list| {
        list.moves == 0 && list.named(&name).is_some_and(|told| told.replicas == 0)
    })
    .await?;
    let took = killed.elapsed().as_secs_f64();
    let gap = progress.longest_gap().as_millis();
    say(format!(
        "everything is on three nodes again, {took:.1} s after the kill; nobody did anything; longest write gap {gap} ms"
    ));
    let remove = WantedOrder::Remove { node: name.clone(), force: false };
    node::order(target, &remove).await.map_err(|error| error.to_string())?;
    until(target, &format!("{name} is forgotten"), |list| list.named(&name).is_none()).await?;

    let directory = lost.directory().to_owned();
    let joined = join(nodes, target, &directory).await?;
    say(format!("{joined} joins with an empty disk"));
    until(target, &format!("{joined} is heard"), |list| list.named(&joined).is_some_and(|told| told.heard))
        .await?;
    let mut still = 0;
    let list = until(target, "nothing moves any more", |list| {
        still = if list.moves == 0 { still + 1 } else { 0 };
        still >= LOOKS_STILL
    })
    .await?;
    match list.named(&joined).map_or(0, |told| told.replicas) {
        0 => say(format!("{joined} stands by for whoever dies next:")),
        has => say(format!("{joined} has its share, {has} replicas:")),
    }
    print!("{}", node::table(&list));
    Ok(())
}

/// Starts one more node; its name.
async fn join(nodes: &mut Vec<Process>, target: &mut Target, directory: &Path) -> Result<String, String> {
    // No name is used twice: the one that is gone was one of so many.
    let name = format!("n{}", nodes.len() + 2);
    let mut process = Process::joining(directory, &name, &target.endpoints)?;
    process.start()?;
    target.endpoints.push(process.client.clone());
    nodes.push(process);
    Ok(name)
}

async fn looked(target: &Target) -> Result<List, String> {
    node::look(target).await.map(|(_, list)| list).map_err(|error| error.to_string())
}

/// Looks until it is so; the last look.
async fn until(target: &Target, what: &str, mut is_so: impl FnMut(&List) -> bool) -> Result<List, String> {
    let begun = Instant::now();
    loop {
        let looked = looked(target).await;
        match looked {
            Ok(list) if is_so(&list) => return Ok(list),
            Ok(_) if begun.elapsed() <= STEP_MAX => {}
            Ok(list) => {
                let limit = STEP_MAX.as_secs();
                return Err(format!("not so after {limit} s: {what}\n{}", node::table(&list)));
            }
            Err(problem) if begun.elapsed() > STEP_MAX => return Err(problem),
            // Whoever was asked may be gone.
            Err(_) => {}
        }
        tokio::time::sleep(LOOK).await;
    }
}
