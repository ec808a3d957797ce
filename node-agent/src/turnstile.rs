//! The agent's bounded workers, shared fairly: first among mappings, then among the databases of a mapping.
//!
//! However many are alone, some workers stay free for a newcomer: with n mappings at work each gets at most
//! 1/(n + 1) of them (at least one). So neither a first copy of ten million objects nor one slow remote keeps others
//! from working.
//!
//! Work that takes long goes on beside the workers, in a bounded number of places shared in the same way: huge objects
//! take no worker from small ones.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use onespace_core::mapping::MappingId;
use tokio::sync::oneshot;

/// One flow of rows: a mapping's database and lane.
pub type Flow = String;

/// The workers of an agent.
#[derive(Clone, Debug)]
pub struct Turnstile {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    total: usize,
    busy: usize,
    mappings: BTreeMap<MappingId, Share>,
    /// Places beside the workers, and who has how many.
    beside: usize,
    lingering: BTreeMap<MappingId, usize>,
    /// Counts grants, so that ties go to whoever waited longest.
    clock: u64,
}

#[derive(Debug, Default)]
struct Share {
    busy: usize,
    last: u64,
    flows: BTreeMap<Flow, FlowShare>,
}

#[derive(Debug, Default)]
struct FlowShare {
    busy: usize,
    last: u64,
    waiting: VecDeque<oneshot::Sender<Pass>>,
}

/// The right to work on one row; dropping it gives the worker back.
#[derive(Debug)]
pub struct Pass {
    turnstile: Turnstile,
    mapping: MappingId,
    flow: Flow,
    lingers: bool,
}

impl Pass {
    /// Gives the worker back and goes on beside; `false` = no place is free there, and nothing changed.
    pub fn linger(&mut self) -> bool {
        let mut inner = self.turnstile.lock();
        if self.lingers || !inner.may_linger(&self.mapping) {
            return self.lingers;
        }
        *inner.lingering.entry(self.mapping.clone()).or_default() += 1;
        inner.leave(&self.mapping, &self.flow);
        self.lingers = true;
        drop(inner);
        self.turnstile.grant();
        true
    }
}

impl Turnstile {
    /// So many workers, and a quarter as many places beside them.
    #[must_use]
    pub fn new(total: usize) -> Self {
        let inner = Inner {
            total: total.max(1),
            busy: 0,
            mappings: BTreeMap::new(),
            beside: (total / 4).max(2),
            lingering: BTreeMap::new(),
            clock: 0,
        };
        Self {
            inner: Arc::new(Mutex::new(inner)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a worker.
    pub async fn enter(&self, mapping: &MappingId, flow: &Flow) -> Pass {
        loop {
            let (sender, receiver) = oneshot::channel();
            {
                let mut inner = self.lock();
                let share = inner.mappings.entry(mapping.clone()).or_default();
                share
                    .flows
                    .entry(flow.clone())
                    .or_default()
                    .waiting
                    .push_back(sender);
            }
            self.grant();
            if let Ok(pass) = receiver.await {
                return pass;
            }
        }
    }

    fn grant(&self) {
        let mut unclaimed = Vec::new();
        {
            let mut inner = self.lock();
            while let Some((mapping, flow, sender)) = inner.next() {
                let pass = Pass {
                    turnstile: self.clone(),
                    mapping,
                    flow,
                    lingers: false,
                };
                // Whoever waited may have gone: its pass comes back when dropped, outside of the lock.
                if let Err(pass) = sender.send(pass) {
                    unclaimed.push(pass);
                }
            }
        }
        drop(unclaimed);
    }
}

impl Inner {
    /// Takes the next waiter that may work, and counts it as working.
    fn next(&mut self) -> Option<(MappingId, Flow, oneshot::Sender<Pass>)> {
        if self.busy >= self.total {
            return None;
        }
        let mapping_cap = cap(self.total, self.mappings.len());
        let (mapping, share) = self
            .mappings
            .iter_mut()
            .filter(|(_, share)| share.busy < mapping_cap && share.may_grant(mapping_cap))
            .min_by_key(|(_, share)| (share.busy, share.last))?;
        let flow_cap = cap(mapping_cap, share.flows.len());
        let (flow, flow_share) = share
            .flows
            .iter_mut()
            .filter(|(_, flow)| flow.busy < flow_cap && !flow.waiting.is_empty())
            .min_by_key(|(_, flow)| (flow.busy, flow.last))?;
        let sender = flow_share.waiting.pop_front()?;
        self.clock += 1;
        flow_share.busy += 1;
        flow_share.last = self.clock;
        let (mapping, flow) = (mapping.clone(), flow.clone());
        share.busy += 1;
        share.last = self.clock;
        self.busy += 1;
        Some((mapping, flow, sender))
    }

    fn may_linger(&self, mapping: &MappingId) -> bool {
        let newcomer = usize::from(!self.lingering.contains_key(mapping));
        let share = cap(self.beside, self.lingering.len() + newcomer);
        self.lingering.values().sum::<usize>() < self.beside
            && self.lingering.get(mapping).is_none_or(|has| *has < share)
    }

    fn stay_no_longer(&mut self, mapping: &MappingId) {
        if let Some(has) = self.lingering.get_mut(mapping) {
            *has -= 1;
            if *has == 0 {
                self.lingering.remove(mapping);
            }
        }
    }

    fn leave(&mut self, mapping: &MappingId, flow: &Flow) {
        self.busy -= 1;
        let Some(share) = self.mappings.get_mut(mapping) else {
            return;
        };
        share.busy -= 1;
        if let Some(flow_share) = share.flows.get_mut(flow) {
            flow_share.busy -= 1;
            if flow_share.busy == 0 && flow_share.waiting.is_empty() {
                share.flows.remove(flow);
            }
        }
        if share.flows.is_empty() {
            self.mappings.remove(mapping);
        }
    }
}

impl Share {
    fn may_grant(&self, mapping_cap: usize) -> bool {
        let flow_cap = cap(mapping_cap, self.flows.len());
        self.flows
            .values()
            .any(|flow| flow.busy < flow_cap && !flow.waiting.is_empty())
    }
}

/// What one of `active` may have of `total`.
fn cap(total: usize, active: usize) -> usize {
    (total / (active + 1)).max(1)
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut inner = self.turnstile.lock();
        if self.lingers {
            inner.stay_no_longer(&self.mapping);
        } else {
            inner.leave(&self.mapping, &self.flow);
        }
        drop(inner);
        self.turnstile.grant();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    fn id(name: &str) -> MappingId {
        MappingId(name.into())
    }

    fn take_all(turnstile: &Turnstile, mapping: &str, flow: &str) -> Vec<Pass> {
        std::iter::from_fn(|| turnstile.enter(&id(mapping), &flow.to_owned()).now_or_never()).collect()
    }

    #[test]
    fn a_mapping_that_takes_all_it_can_get_leaves_workers_for_a_newcomer() {
        let turnstile = Turnstile::new(32);
        let greedy = take_all(&turnstile, "greedy", "db");
        assert!(
            greedy.len() >= 8,
            "alone it gets a good share, got {}",
            greedy.len()
        );
        let newcomer = take_all(&turnstile, "newcomer", "db");
        assert!(newcomer.len() >= 5, "got {}", newcomer.len());
    }

    #[test]
    fn a_database_that_takes_all_it_can_get_leaves_workers_for_another_of_the_same_mapping() {
        let turnstile = Turnstile::new(32);
        let greedy = take_all(&turnstile, "m", "big");
        let fresh = take_all(&turnstile, "m", "small");
        assert!(!greedy.is_empty() && !fresh.is_empty());
    }

    #[test]
    fn with_more_mappings_than_workers_each_comes_to_its_turn() {
        let turnstile = Turnstile::new(2);
        let (a, b) = (take_all(&turnstile, "a", "db"), take_all(&turnstile, "b", "db"));
        assert_eq!((a.len(), b.len()), (1, 1));
        let (third, name) = (id("c"), "db".to_owned());
        let mut waits = Box::pin(turnstile.enter(&third, &name));
        assert!(waits.as_mut().now_or_never().is_none());
        drop(a);
        assert!(waits.now_or_never().is_some());
    }

    #[test]
    fn work_that_takes_long_takes_no_worker_and_a_bounded_number_of_places() {
        let turnstile = Turnstile::new(32);
        let mut greedy = take_all(&turnstile, "greedy", "db");
        let long = greedy
            .iter_mut()
            .filter_map(|pass| pass.linger().then_some(()))
            .count();
        assert_eq!(long, 4, "half of the places");
        assert_eq!(
            take_all(&turnstile, "greedy", "db").len(),
            4,
            "its workers came back"
        );
        let mut newcomer = take_all(&turnstile, "newcomer", "db");
        assert!(newcomer[0].linger() && newcomer[0].linger());
        drop((greedy, newcomer));
        let inner = turnstile.inner.lock().unwrap();
        assert_eq!((inner.busy, inner.lingering.len()), (0, 0));
    }

    #[test]
    fn every_worker_comes_back() {
        let turnstile = Turnstile::new(4);
        for _ in 0..100 {
            drop(take_all(&turnstile, "a", "x"));
            drop(take_all(&turnstile, "b", "y"));
        }
        let inner = turnstile.inner.lock().unwrap();
        assert_eq!((inner.busy, inner.mappings.len()), (0, 0));
    }
}
