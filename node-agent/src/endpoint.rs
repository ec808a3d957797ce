//! Waiting for the internal endpoint when the agent starts. It is started beside the agent and needs longer, and what the agent
//! tried meanwhile would wait as after any failure, longer and longer.

use std::time::Duration;

/// So long, and no longer: then whatever needs the endpoint pauses and says why.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// How often it is tried.
const EVERY: Duration = Duration::from_millis(200);

/// Waits until this is true, but not longer than `patience`. Returns whether it is.
pub async fn until_up<F: Future<Output = bool>>(patience: Duration, is_up: impl Fn() -> F) -> bool {
    let wait = async {
        while !is_up().await {
            tokio::time::sleep(EVERY).await;
        }
    };
    tokio::time::timeout(patience, wait).await.is_ok()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_is_waited_for_but_not_for_ever() {
        let started = tokio::time::Instant::now();
        let looks = AtomicU32::new(0);
        assert!(
            until_up(PATIENCE, || std::future::ready(
                looks.fetch_add(1, Ordering::Relaxed) == 9
            ))
            .await
        );
        assert!(started.elapsed() < Duration::from_secs(3), "it goes on at once");
        assert!(!until_up(PATIENCE, || std::future::ready(false)).await);
        assert!(started.elapsed() < 2 * PATIENCE);
    }
}
