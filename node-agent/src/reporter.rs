//! `/status`: the latest reports, whole or only what changed since a revision.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use onespace_core::mapping::{FEATURES, FORMAT_VERSION, MappingId};
use onespace_core::report::{AgentInfo, MappingReport, Report};
use tokio::sync::watch;

use crate::supervisor::Running;

/// How many mappings one answer holds unless asked for fewer.
pub const LIMIT: usize = 500;

/// How many mappings that are gone are remembered by name; whoever asks from before gets a full answer.
const REMEMBERED: usize = 1000;

/// Numbers every change, so that a reader can ask for what is new.
#[derive(Debug)]
pub struct Reporter {
    boot: String,
    info: AgentInfo,
    running: watch::Receiver<Running>,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    revision: u64,
    mappings: BTreeMap<MappingId, (u64, MappingReport)>,
    removed: BTreeMap<MappingId, u64>,
    forgotten_up_to: u64,
}

impl Reporter {
    /// Reports of this agent. `boot` differs for every start of it.
    #[must_use]
    pub fn new(node: String, boot: String, running: watch::Receiver<Running>) -> Self {
        let info = AgentInfo {
            node,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            format_versions: vec![FORMAT_VERSION],
            features: FEATURES.iter().map(|feature| (*feature).to_owned()).collect(),
        };
        Self {
            boot,
            info,
            running,
            seen: Mutex::default(),
        }
    }

    /// Whether a set of mappings runs.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.running.borrow().loaded
    }

    /// Whether newer mapping files could not be loaded.
    #[must_use]
    pub fn config_error(&self) -> bool {
        self.running.borrow().config.error.is_some()
    }

    /// The latest reports of all mappings.
    #[must_use]
    pub fn mappings(&self) -> Vec<MappingReport> {
        self.running
            .borrow()
            .mappings
            .values()
            .map(|entry| entry.reports.borrow().clone())
            .collect()
    }

    /// The commands of a mapping.
    #[must_use]
    pub fn commands(&self, id: &str) -> Option<tokio::sync::mpsc::Sender<crate::mapping_task::Command>> {
        self.running
            .borrow()
            .mappings
            .get(&MappingId(id.to_owned()))
            .map(|entry| entry.commands.clone())
    }

    /// What changed since `since` (or everything), at most `limit` mappings, those after `after`.
    #[must_use]
    pub fn report(&self, since: Option<&str>, after: Option<&str>, limit: usize) -> Report {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let running = self.running.borrow();
        seen.update(&running);
        let since = since
            .and_then(|since| since.split_once(':'))
            .filter(|(boot, _)| *boot == self.boot)
            .and_then(|(_, number)| number.parse::<u64>().ok())
            .filter(|number| *number >= seen.forgotten_up_to);
        let mut changed = seen
            .mappings
            .iter()
            .filter(|(id, (revision, _))| {
                since.is_none_or(|since| *revision > since) && after.is_none_or(|after| id.0.as_str() > after)
            })
            .map(|(_, (_, report))| report);
        let mappings: Vec<_> = changed.by_ref().take(limit).cloned().collect();
        let next = changed.next().and(mappings.last()).map(|last| last.id.clone());
        Report {
            agent: self.info.clone(),
            config: running.config.clone(),
            revision: format!("{}:{}", self.boot, seen.revision),
            full: since.is_none(),
            next,
            removed: since
                .map(|since| {
                    let removed = seen.removed.iter().filter(|(_, revision)| **revision > since);
                    removed.map(|(id, _)| id.clone()).collect()
                })
                .unwrap_or_default(),
            mappings,
        }
    }
}

impl Seen {
    fn update(&mut self, running: &Running) {
        let gone: Vec<_> = self
            .mappings
            .keys()
            .filter(|id| !running.mappings.contains_key(id))
            .cloned()
            .collect();
        for id in gone {
            self.revision += 1;
            self.mappings.remove(&id);
            self.removed.insert(id, self.revision);
        }
        for (id, entry) in &running.mappings {
            let report = entry.reports.borrow();
            if self.mappings.get(id).is_none_or(|(_, last)| *last != *report) {
                self.revision += 1;
                self.mappings.insert(id.clone(), (self.revision, report.clone()));
                self.removed.remove(id);
            }
        }
        while self.removed.len() > REMEMBERED {
            let Some((id, revision)) = self.removed.iter().min_by_key(|(_, revision)| **revision) else {
                break;
            };
            self.forgotten_up_to = self.forgotten_up_to.max(*revision);
            let id = id.clone();
            self.removed.remove(&id);
        }
    }
}
