//! What one agent said last of everything.

use std::collections::BTreeMap;

use super::kept::Kept;
use crate::report::Report;

/// What one agent said last. A silent agent's last words stay.
#[derive(Clone, Debug, Default)]
pub struct AgentView {
    /// The node as the ring names it: its container servers, with commas between them.
    pub node: String,
    /// It answered the last time.
    pub reachable: bool,
    /// When it answered last, in seconds since 1970.
    pub as_of: i64,
    /// Where to go on from when it is asked again.
    pub revision: Option<String>,
    /// The revision of the files that it runs.
    pub config_revision: String,
    /// Other files are there, which it could not load.
    pub failed_to_load: bool,
    /// Mappings that it refuses: reason and message.
    pub refused: BTreeMap<String, (String, String)>,
    /// What it says of mappings, by id.
    pub(super) mappings: BTreeMap<String, Kept>,
    /// What it said last of the mappings that it refuses, and when.
    pub(super) before_refusal: BTreeMap<String, (Kept, i64)>,
}

/// One page of an agent's answer, as much of it as is kept.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The node as the ring names it.
    pub node: String,
    /// The revision of the files that it runs.
    pub config_revision: String,
    /// Other files are there, which it could not load.
    pub failed_to_load: bool,
    /// Mappings that it refuses: reason and message.
    pub refused: BTreeMap<String, (String, String)>,
    /// The revision of the answer.
    pub revision: String,
    /// Whether every mapping stands in the answer, or only those that changed.
    pub full: bool,
    /// Where the next page begins, if there is one.
    pub next: Option<String>,
    /// Mappings that are gone.
    pub removed: Vec<String>,
    /// The mappings, by id.
    pub mappings: Vec<(String, Kept)>,
}

impl From<Report> for Page {
    fn from(report: Report) -> Self {
        let Report {
            agent,
            config,
            revision,
            full,
            next,
            removed,
            mappings,
        } = report;
        let refused = config.refused.into_iter();
        let mappings = mappings.into_iter().map(|mut mapping| {
            let id = std::mem::take(&mut mapping.id);
            (id, Kept::of(mapping))
        });
        Self {
            node: agent.node,
            config_revision: config.revision,
            failed_to_load: config.error.is_some(),
            refused: refused
                .map(|refused| (refused.id, (refused.reason, refused.message)))
                .collect(),
            revision,
            full,
            next,
            removed: removed.into_iter().map(|id| id.0).collect(),
            mappings: mappings.collect(),
        }
    }
}

impl AgentView {
    /// Takes one page of an answer: the first names the revision to go on from, and says whether it is a full answer.
    pub fn take(&mut self, page: Page, first: bool, now: i64) {
        let Page {
            node,
            config_revision,
            failed_to_load,
            refused,
            revision,
            full,
            next: _,
            removed,
            mappings,
        } = page;
        self.refused = refused;
        self.before_refusal.retain(|id, _| self.refused.contains_key(id));
        if first {
            if full {
                std::mem::take(&mut self.mappings)
                    .into_iter()
                    .for_each(|(id, kept)| self.lose(id, kept));
            }
            self.revision = Some(revision);
        }
        for id in removed {
            if let Some(kept) = self.mappings.remove(&id) {
                self.lose(id, kept);
            }
        }
        self.node = node;
        self.reachable = true;
        self.as_of = now;
        self.config_revision = config_revision;
        self.failed_to_load = failed_to_load;
        self.mappings.extend(mappings);
    }

    /// All container servers that it has seen the ring name for any mapping.
    pub(super) fn rings(&self) -> impl Iterator<Item = &str> {
        self.mappings.values().flat_map(Kept::ring)
    }

    /// The container servers that it works for, as the ring names them.
    pub(super) fn servers(&self) -> impl Iterator<Item = &str> {
        self.node.split(',')
    }

    /// Whether it ever answered: before that nothing but where it is asked is known of it.
    #[must_use]
    pub fn has_answered(&self) -> bool {
        self.revision.is_some()
    }

    /// It reports this mapping no more. What it had counted stays if it is one that it refuses; nothing of nothing does, nor how old
    /// that is.
    fn lose(&mut self, id: String, kept: Kept) {
        if kept.part.is_some() && self.refused.contains_key(&id) {
            self.before_refusal.insert(id, (kept, self.as_of));
        }
    }
}
