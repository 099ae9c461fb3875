//! `quorate doctor` on healthy data: what it counts, that it changes nothing, and that it leaves a running node alone.

#![allow(clippy::unwrap_used)] // A test; the lint's own exemption does not see helpers.

mod support;

use support::damage::tables;
use support::{Cluster, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_healthy_node_is_called_healthy_when_it_is_stopped_and_left_alone_while_it_runs() {
    let mut cluster = Cluster::started(1).await;
    let node = &mut cluster.nodes[0];
    for number in 0..10 {
        node.only().put(&format!("k{number}"), "v").await;
    }
    let data_dir = node.data_dir.display().to_string();
    let (code, said) = run(&["doctor", &data_dir]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&data_dir) && said.contains("in use by another process"), "{said}");
    assert!(node.is_running());

    // After a clean stop and after kill -9 alike, and as often as one likes.
    assert!(node.stop().await.success());
    for is_clean in [true, false] {
        if !is_clean {
            node.start();
            node.ready().await;
            node.kill();
        }
        let (code, first) = run(&["doctor", &data_dir]);
        assert_eq!(code, Some(0), "{first}");
        for word in ["data of node", "frames in", "group 1/0: applied", "revision 11", "nothing wrong"] {
            assert!(first.contains(word), "does not say «{word}»: {first}");
        }
        assert!(!first.contains("DAMAGE"), "{first}");
        assert_eq!(run(&["doctor", &data_dir]), (Some(0), first));
    }
    let (code, said) = run(&["doctor", "-o", "json", &data_dir]);
    assert_eq!(code, Some(0), "{said}");
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["damage"], serde_json::json!([]));

    node.start();
    node.ready().await;
    assert_eq!(node.only().get("k9").await.as_deref(), Some("v"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_in_the_store_is_found() {
    let mut cluster = Cluster::started(1).await;
    let node = &mut cluster.nodes[0];
    // So that there are files to damage.
    let value = "v".repeat(1 << 20);
    for number in 0..40 {
        node.only().put(&format!("k{number}"), &format!("{number} {value}")).await;
    }
    assert!(node.stop().await.success());
    let data_dir = node.data_dir.display().to_string();
    let table = &tables(node).pop().expect("a table on disk");
    let mut bytes = std::fs::read(table).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    std::fs::write(table, &bytes).unwrap();
    let (code, said) = run(&["doctor", &data_dir]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("DAMAGE") && !said.contains("panicked"), "{said}");
    bytes[middle] ^= 0x10;
    std::fs::write(table, &bytes).unwrap();
    assert_eq!(run(&["doctor", &data_dir]).0, Some(0));
}
