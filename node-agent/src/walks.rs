//! Walks over this node's devices, one for all mappings, each device by itself.
//!
//! Containers of an account, and shards, cannot be computed: they are found by looking at every database. A walk takes
//! about a second for 20,000 containers, but the first, which opens each, over 20; so that no walk ever takes more than a
//! twentieth of a thread, the next one waits accordingly.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use onespace_stores::swift::locate::{Catalogue, Located, Node};
use tokio::sync::Notify;

/// How often a device is walked, if a walk is short.
const WALK: Duration = Duration::from_secs(5);

/// How many times longer than a walk the wait for the next one is.
const REST: u32 = 20;

/// An account that nobody asked for in so long a time is not looked for any more.
const FORGET: Duration = Duration::from_secs(60);

/// A walk that visits no further container in so long a time hangs.
const HANGS: Duration = Duration::from_secs(60);

/// How long to wait for a walk that is under way.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is known of all devices.
#[derive(Debug, Default)]
pub struct Walks {
    devices: Mutex<Devices>,
    ended: Notify,
}

#[derive(Debug, Default)]
struct Devices {
    wanted: BTreeMap<String, Instant>,
    devices: BTreeMap<String, Device>,
}

#[derive(Debug, Default)]
struct Device {
    under_way: Option<UnderWay>,
    catalogue: Catalogue,
    /// The last walk, and the accounts that it looked for.
    last: Option<(BTreeSet<String>, Arc<Located>)>,
    next: Option<Instant>,
}

#[derive(Debug)]
struct UnderWay {
    visited: Arc<AtomicU64>,
    seen: (u64, Instant),
}

/// What the last walks found.
#[derive(Debug, Default)]
pub struct Walked {
    /// By device.
    pub found: Vec<Arc<Located>>,
    /// Some device was not walked for these accounts yet.
    pub walking: bool,
    /// Devices on which a walk hangs.
    pub stuck: BTreeSet<String>,
}

impl Walks {
    /// The latest of these accounts on this node. Starts walks that are due; waits a moment if there is nothing to
    /// show yet.
    pub async fn look(self: &Arc<Self>, node: &Arc<Node>, accounts: &BTreeSet<String>) -> Walked {
        let patience = tokio::time::sleep(PATIENCE);
        tokio::pin!(patience);
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            let walked = self.latest(node, accounts);
            if !walked.walking {
                return walked;
            }
            tokio::select! {
                () = ended => {}
                () = &mut patience => return walked,
            }
        }
    }

    fn latest(self: &Arc<Self>, node: &Arc<Node>, accounts: &BTreeSet<String>) -> Walked {
        let now = Instant::now();
        let mut all = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        let Devices { wanted, devices } = &mut *all;
        for account in accounts {
            wanted.insert(account.clone(), now);
        }
        wanted.retain(|_, asked| now.duration_since(*asked) < FORGET);
        let local = node.local_devices();
        devices.retain(|name, device| local.contains(name) || device.under_way.is_some());
        let mut walked = Walked::default();
        for name in local {
            let device = devices.entry(name.clone()).or_default();
            let is_known = |last: &(BTreeSet<String>, _)| accounts.is_subset(&last.0);
            let known = device.last.as_ref().is_some_and(is_known);
            match &mut device.under_way {
                Some(under_way) => {
                    let visited = under_way.visited.load(Ordering::Relaxed);
                    if visited != under_way.seen.0 {
                        under_way.seen = (visited, now);
                    } else if now.duration_since(under_way.seen.1) > HANGS {
                        walked.stuck.insert(name.clone());
                    }
                }
                None if !known || device.next.is_none_or(|next| next <= now) => {
                    let visited = Arc::<AtomicU64>::default();
                    device.under_way = Some(UnderWay {
                        visited: visited.clone(),
                        seen: (0, now),
                    });
                    let catalogue = std::mem::take(&mut device.catalogue);
                    let wanted = wanted.keys().cloned().collect();
                    self.walk(node.clone(), name, wanted, catalogue, visited);
                }
                None => {}
            }
            walked.walking |= !known;
            walked
                .found
                .extend(device.last.as_ref().map(|(_, located)| located.clone()));
        }
        walked
    }

    fn walk(
        self: &Arc<Self>,
        node: Arc<Node>,
        name: String,
        wanted: BTreeSet<String>,
        mut catalogue: Catalogue,
        visited: Arc<AtomicU64>,
    ) {
        let walks = self.clone();
        tokio::spawn(async move {
            let started = Instant::now();
            let (device, accounts) = (name.clone(), wanted.clone());
            let walk = tokio::task::spawn_blocking(move || {
                let located = node.walk(&device, &accounts, &mut catalogue, &visited);
                (located, catalogue)
            });
            let ended = walk.await;
            let rest = (started.elapsed() * REST).max(WALK);
            {
                let mut all = walks.devices.lock().unwrap_or_else(PoisonError::into_inner);
                let device = all.devices.entry(name.clone()).or_default();
                device.under_way = None;
                device.next = Some(Instant::now() + rest);
                match ended {
                    Ok((located, catalogue)) => {
                        device.catalogue = catalogue;
                        device.last = Some((wanted, Arc::new(located)));
                    }
                    Err(error) => tracing::error!("the walk over device {name} ended abnormally: {error}"),
                }
            }
            walks.ended.notify_waiters();
        });
    }
}
