//! Short work on devices, so that one that hangs stops nothing but its own databases.
//!
//! A system call on a hung disk never returns, and nothing can end its thread. So every device has a few threads of
//! its own: when all of them hang, work on that device fails at once, until one returns.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

/// Threads of one device.
const THREADS: usize = 4;

/// A device did not answer in time, or has not answered others.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("device {0} does not answer: check the disk")]
pub struct Stuck(pub String);

/// The devices of this node.
#[derive(Debug, Default)]
pub struct Disks {
    devices: Mutex<HashMap<String, Arc<Device>>>,
}

#[derive(Debug)]
struct Device {
    threads: Arc<Semaphore>,
    stuck: AtomicUsize,
}

impl Disks {
    /// Does blocking work on a device, and waits for it at most so long.
    ///
    /// # Errors
    /// [`Stuck`]; the work may still happen, its result is lost.
    pub async fn run<T: Send + 'static>(
        &self,
        name: &str,
        patience: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Stuck> {
        let stuck = || Stuck(name.to_owned());
        let device = self.device(name);
        if device.stuck.load(Ordering::Relaxed) >= THREADS {
            return Err(stuck());
        }
        let deadline = Instant::now() + patience;
        let Ok(Ok(thread)) = timeout_at(deadline, device.threads.clone().acquire_owned()).await else {
            return Err(stuck());
        };
        let mut task = tokio::task::spawn_blocking(move || {
            let _thread = thread;
            work()
        });
        match timeout_at(deadline, &mut task).await {
            Ok(done) => done.map_err(|_| stuck()),
            Err(_) => {
                device.stuck.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(async move {
                    let _ = task.await;
                    device.stuck.fetch_sub(1, Ordering::Relaxed);
                });
                Err(stuck())
            }
        }
    }

    fn device(&self, name: &str) -> Arc<Device> {
        let mut devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        let device = devices.entry(name.to_owned()).or_insert_with(|| {
            Arc::new(Device {
                threads: Arc::new(Semaphore::new(THREADS)),
                stuck: AtomicUsize::new(0),
            })
        });
        device.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    const SHORT: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn a_hung_device_takes_a_few_threads_and_stops_no_other() {
        let disks = Disks::default();
        let (hang, hung) = mpsc::channel::<()>();
        let hung = Arc::new(Mutex::new(hung));
        for _ in 0..THREADS {
            let hung = hung.clone();
            let work = move || hung.lock().unwrap().recv().unwrap_or(());
            assert_eq!(disks.run("bad", SHORT, work).await, Err(Stuck("bad".to_owned())));
        }
        // No thread is left: this fails at once, and the other device works.
        let started = Instant::now();
        assert!(disks.run("bad", LONG, || ()).await.is_err());
        assert!(started.elapsed() < LONG / 2);
        assert_eq!(disks.run("good", LONG, || 7).await, Ok(7));
        // The disk comes back.
        drop(hang);
        let back = async {
            while disks.run("bad", LONG, || ()).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LONG, back).await.unwrap();
    }
}
