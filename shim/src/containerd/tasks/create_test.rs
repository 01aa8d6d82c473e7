//! Ids that are taken, and creations that are given up.

use std::time::Duration;

use tokio::task::LocalSet;
use tokio::time::timeout;

use super::super::super::events::Events;
use super::*;

fn tasks() -> Tasks {
    Tasks::new("test", PathBuf::from("/none"), Events::to("/none", "test"))
}

#[tokio::test]
async fn a_creation_that_is_given_up_ends_the_process_with_it() {
    let test = async {
        let tasks = tasks();
        let claim = tasks.claim("c").unwrap();
        assert!(claim.is_wanted());
        assert!(tasks.claim("c").is_err(), "it is taken");
        tasks.delete("c", "").await.unwrap_err();
        assert!(!claim.is_wanted());
        tasks.shut_down();
        timeout(Duration::from_millis(20), tasks.over()).await.unwrap_err();
        drop(claim);
        timeout(Duration::from_secs(10), tasks.over()).await.unwrap();
        assert!(tasks.claim("c").unwrap().is_wanted(), "it is free again");
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn numbers_are_told_of_every_id() {
    let test = async { assert_eq!(tasks().numbers("unknown"), (std::process::id(), 0)) };
    LocalSet::new().run_until(test).await;
}
