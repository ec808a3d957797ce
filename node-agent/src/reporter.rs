//! `/status`: the latest reports, whole or only what changed since a revision.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use onespace_core::mapping::{FEATURES, FORMAT_VERSION, MappingId};
use onespace_core::report::{AgentInfo, ConfigReport, MappingReport, Report};
use tokio::sync::watch;

use crate::supervisor::Running;

/// How many mappings one answer holds unless asked for fewer.
pub const LIMIT: usize = 500;

/// How many mappings that are gone are remembered by name; whoever asks from before gets a full answer.
const REMEMBERED: usize = 1000;

/// Numbers every change, so that a reader can ask for what is new.
pub struct Reporter {
    boot: String,
    node: Box<dyn Fn() -> String + Send + Sync>,
    info: AgentInfo,
    running: watch::Receiver<Running>,
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    running: watch::Receiver<Running>,
    /// Of one moment with the mappings: who is refused is no longer among those.
    config: ConfigReport,
    revision: u64,
    mappings: BTreeMap<MappingId, Known>,
    removed: BTreeMap<MappingId, u64>,
    forgotten_up_to: u64,
}

/// A report as it was last seen.
#[derive(Debug)]
struct Known {
    /// Of the change that brought it.
    revision: u64,
    report: MappingReport,
    /// Where it came from. It knows cheaply whether there is a later one: most of thousands did not change.
    source: watch::Receiver<MappingReport>,
}

impl Reporter {
    /// Reports of this agent. `node` is asked for its name whenever it reports: the ring may come to name it, or name more of
    /// it. `boot` differs for every start of it.
    #[must_use]
    pub fn new(
        node: impl Fn() -> String + Send + Sync + 'static,
        boot: String,
        running: watch::Receiver<Running>,
    ) -> Self {
        let info = AgentInfo {
            node: String::new(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            format_versions: vec![FORMAT_VERSION],
            features: FEATURES.iter().map(|feature| (*feature).to_owned()).collect(),
        };
        // What runs already is new to it.
        let mut unseen = running.clone();
        unseen.mark_changed();
        Self {
            boot,
            node: Box::new(node),
            info,
            seen: Mutex::new(Seen {
                running: unseen,
                config: ConfigReport::default(),
                revision: 0,
                mappings: BTreeMap::new(),
                removed: BTreeMap::new(),
                forgotten_up_to: 0,
            }),
            running,
        }
    }

    /// Whether a set of mappings runs.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.running.borrow().loaded
    }

    /// Whether nothing was begun yet because the internal endpoint is not up.
    #[must_use]
    pub fn waits_for_endpoint(&self) -> bool {
        self.running.borrow().waits_for_endpoint
    }

    /// What configuration runs, and what of it does not.
    #[must_use]
    pub fn config(&self) -> ConfigReport {
        self.running.borrow().config.clone()
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
    pub fn commands(&self, id: &str) -> Option<tokio::sync::mpsc::Sender<crate::mapping_task::Order>> {
        self.running
            .borrow()
            .mappings
            .get(&MappingId(id.to_owned()))
            .map(|entry| entry.commands.clone())
    }

    /// What changed since `since` (or everything), at most `limit` mappings, those after `after`.
    #[must_use]
    pub fn report(&self, since: Option<&str>, after: Option<&str>, limit: usize) -> Report {
        let agent = AgentInfo {
            node: (self.node)(),
            ..self.info.clone()
        };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.update();
        let since = since
            .and_then(|since| since.split_once(':'))
            .filter(|(boot, _)| *boot == self.boot)
            .and_then(|(_, number)| number.parse::<u64>().ok())
            .filter(|number| *number >= seen.forgotten_up_to);
        let mut changed = seen
            .mappings
            .iter()
            .filter(|(id, known)| {
                since.is_none_or(|since| known.revision > since)
                    && after.is_none_or(|after| id.0.as_str() > after)
            })
            .map(|(_, known)| &known.report);
        let mappings: Vec<_> = changed.by_ref().take(limit).cloned().collect();
        let next = changed.next().and(mappings.last()).map(|last| last.id.clone());
        Report {
            agent,
            config: seen.config.clone(),
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
    fn update(&mut self) {
        // As long as the same mappings run, each is looked at where it stands.
        if !matches!(self.running.has_changed(), Ok(false)) {
            self.follow();
        }
        for known in self.mappings.values_mut() {
            if !matches!(known.source.has_changed(), Ok(false)) {
                let report = known.source.borrow_and_update().clone();
                if report != known.report {
                    self.revision += 1;
                    known.revision = self.revision;
                    known.report = report;
                }
            }
        }
    }

    /// Takes up the mappings that run now.
    fn follow(&mut self) {
        let running = self.running.borrow_and_update();
        self.config = running.config.clone();
        let is_gone = |id: &MappingId| !running.mappings.contains_key(id);
        for (id, _) in self.mappings.extract_if(.., |id, _| is_gone(id)) {
            self.revision += 1;
            self.removed.insert(id, self.revision);
        }
        for (id, entry) in &running.mappings {
            match self.mappings.get_mut(id) {
                Some(known) if known.source.same_channel(&entry.reports) => {}
                Some(known) => {
                    known.source = entry.reports.clone();
                    known.source.mark_changed();
                }
                None => {
                    let mut source = entry.reports.clone();
                    let report = source.borrow_and_update().clone();
                    self.revision += 1;
                    self.removed.remove(id);
                    let known = Known {
                        revision: self.revision,
                        report,
                        source,
                    };
                    self.mappings.insert(id.clone(), known);
                }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::Entry;

    /// What the supervisor shows of mappings of these ids, and the ends that they report through.
    struct Shown {
        running: watch::Sender<Running>,
        reports: BTreeMap<String, watch::Sender<MappingReport>>,
    }

    impl Shown {
        fn new() -> (Self, Reporter) {
            let (running, shown) = watch::channel(Running::default());
            let reports = BTreeMap::new();
            (
                Self { running, reports },
                Reporter::new(|| "node".into(), "boot".into(), shown),
            )
        }

        fn set(&mut self, id: &str, rows: u64) {
            let mut report = MappingReport {
                id: id.into(),
                ..MappingReport::default()
            };
            report.pending.rows = rows;
            if let Some(sender) = self.reports.get(id) {
                sender.send_replace(report);
                return;
            }
            let (sender, reports) = watch::channel(report);
            let (commands, _) = tokio::sync::mpsc::channel(1);
            self.reports.insert(id.into(), sender);
            let entry = Entry { reports, commands };
            self.running
                .send_modify(|running| drop(running.mappings.insert(MappingId(id.into()), entry)));
        }

        fn remove(&mut self, id: &str) {
            self.reports.remove(id);
            self.running
                .send_modify(|running| drop(running.mappings.remove(&MappingId(id.into()))));
        }
    }

    fn ids(report: &Report) -> Vec<&str> {
        report
            .mappings
            .iter()
            .map(|mapping| mapping.id.as_str())
            .collect()
    }

    #[test]
    fn an_agent_is_known_by_the_name_that_the_ring_has_for_it_now() {
        let (_running, shown) = watch::channel(Running::default());
        let name = std::sync::Arc::new(Mutex::new(String::new()));
        let known = name.clone();
        let reporter = Reporter::new(move || known.lock().unwrap().clone(), "boot".into(), shown);
        let node = || reporter.report(None, None, LIMIT).agent.node;
        assert_eq!(node(), "", "it is in no ring yet");
        "10.0.0.1:6201".clone_into(&mut name.lock().unwrap());
        assert_eq!(node(), "10.0.0.1:6201");
    }

    #[test]
    fn only_what_changed_since_a_revision_is_shown() {
        let (mut shown, reporter) = Shown::new();
        shown.set("a", 1);
        shown.set("b", 1);
        let first = reporter.report(None, None, LIMIT);
        assert!(first.full);
        assert_eq!(ids(&first), ["a", "b"]);
        let since = |revision: &str| reporter.report(Some(revision), None, LIMIT);
        assert_eq!(ids(&since(&first.revision)), [""; 0]);
        shown.set("b", 2);
        shown.remove("a");
        let second = since(&first.revision);
        assert!(!second.full);
        assert_eq!(ids(&second), ["b"]);
        assert_eq!(second.removed, [MappingId("a".into())]);
        assert_eq!(since(&second.revision).removed, []);
    }

    #[test]
    fn a_revision_of_another_start_gets_a_full_answer() {
        let (mut shown, reporter) = Shown::new();
        shown.set("a", 1);
        for revision in ["other:1", "boot:x", "boot", ""] {
            let report = reporter.report(Some(revision), None, LIMIT);
            assert!(report.full, "{revision}");
            assert_eq!(ids(&report), ["a"]);
        }
    }

    #[test]
    fn whoever_asks_from_before_a_forgotten_removal_gets_a_full_answer() {
        let (mut shown, reporter) = Shown::new();
        for number in 0..=REMEMBERED {
            shown.set(&number.to_string(), 1);
        }
        let before = reporter.report(None, None, 1).revision;
        for number in 0..=REMEMBERED {
            shown.remove(&number.to_string());
        }
        let report = reporter.report(Some(&before), None, LIMIT);
        assert!(report.full && report.removed.is_empty());
    }

    #[test]
    fn pages_followed_from_the_first_ones_revision_miss_no_change() {
        let (mut shown, reporter) = Shown::new();
        for id in ["a", "b", "c"] {
            shown.set(id, 1);
        }
        let first = reporter.report(None, None, 2);
        assert_eq!((ids(&first), first.next.as_deref()), (vec!["a", "b"], Some("b")));
        // Between two pages: on the first, and therefore only seen from its revision on.
        shown.set("a", 2);
        let second = reporter.report(None, first.next.as_deref(), 2);
        assert_eq!((ids(&second), second.next.as_deref()), (vec!["c"], None));
        assert_eq!(ids(&reporter.report(Some(&first.revision), None, 2)), ["a"]);
    }
}
