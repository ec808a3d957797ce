//! What all agents said last.

use std::collections::{BTreeMap, BTreeSet};

use onespace_core::status::{AgentView, silent};

use crate::ask::Update;
use crate::metrics::Metrics;

/// What all agents said last, by what each is known here: the URL of the option, or the node of its pod.
#[derive(Debug, Default)]
pub struct Agents {
    views: BTreeMap<String, AgentView>,
    /// Those that are asked.
    asked: BTreeSet<String>,
    /// Those of whom nothing was heard yet, not even silence.
    awaited: BTreeSet<String>,
}

/// What answers say anything new of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct News {
    all: bool,
    of: BTreeSet<String>,
}

/// Whether an agent runs a revision of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It does.
    Yes,
    /// It runs another one.
    NotYet,
    /// It runs another one, and what it has seen since were not whole files: they were being written.
    Failed,
    /// It does not answer.
    Unknown,
}

impl News {
    /// Of every mapping.
    #[must_use]
    pub fn of_all() -> Self {
        Self {
            all: true,
            of: BTreeSet::new(),
        }
    }

    /// Whether anything new is said of a mapping.
    #[must_use]
    pub fn concern(&self, mapping: &str) -> bool {
        self.all || self.of.contains(mapping)
    }

    /// Also of this mapping.
    pub fn add(&mut self, mapping: &str) {
        self.of.insert(mapping.to_owned());
    }

    /// Both.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.all |= other.all;
        self.of.extend(other.of);
        self
    }
}

impl Agents {
    /// From now on these are asked. What others said last stays: they are silent. Who has never said anything is forgotten.
    pub fn expect(&mut self, agents: &BTreeMap<String, String>) {
        self.asked = agents.keys().cloned().collect();
        self.awaited.retain(|agent| agents.contains_key(agent));
        for agent in agents.keys() {
            if !self.views.contains_key(agent) {
                self.awaited.insert(agent.clone());
            }
        }
        self.views
            .retain(|agent, view| view.has_answered() || agents.contains_key(agent));
        for (agent, view) in &mut self.views {
            view.reachable &= agents.contains_key(agent);
        }
    }

    /// Takes an answer. Returns what it says anything new of; none if of nothing.
    pub fn take(&mut self, update: Update, now: i64) -> Option<News> {
        let Update { agent, answer } = update;
        // Said before its pod went: it would count as an answer of today for ever.
        if !self.asked.contains(&agent) {
            return None;
        }
        let first_word = self.awaited.remove(&agent);
        let view = self.views.entry(agent.clone()).or_default();
        match answer {
            Ok(pages) => {
                let (reachable, node) = (view.reachable, view.node.clone());
                let (revision, refused) = (view.config_revision.clone(), view.refused.clone());
                let mut news = News::default();
                for (number, page) in pages.into_iter().enumerate() {
                    news.all |= page.full;
                    news.of.extend(page.removed.iter().cloned());
                    news.of.extend(page.mappings.iter().map(|(id, _)| id.clone()));
                    view.take(page, number == 0, now);
                }
                news.all |= first_word || !reachable || node != view.node;
                let known = refused.keys().chain(view.refused.keys());
                let changed = known.filter(|id| refused.get(*id) != view.refused.get(*id));
                news.of.extend(changed.cloned());
                let is_news = news != News::default() || revision != view.config_revision;
                is_news.then_some(news)
            }
            Err(why) => {
                let news = first_word || view.reachable;
                if news {
                    tracing::warn!(agent, "does not answer: {why}");
                }
                view.reachable = false;
                if view.node.is_empty() {
                    view.node = agent;
                }
                news.then(News::of_all)
            }
        }
    }

    /// Whether every agent was heard of once.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.awaited.is_empty()
    }

    /// What is known of an agent and this revision of the files.
    #[must_use]
    pub fn has_taken(&self, agent: &str, revision: &str) -> Taken {
        match self.views.get(agent).filter(|view| view.reachable) {
            None => Taken::Unknown,
            Some(view) if view.config_revision == revision => Taken::Yes,
            Some(view) if view.failed_to_load => Taken::Failed,
            Some(_) => Taken::NotYet,
        }
    }

    /// All views.
    pub fn views(&self) -> impl Iterator<Item = &AgentView> + Clone {
        self.views.values()
    }

    /// Counts them in the metrics, by whether they answer and run this revision of the files. Nothing is known of those of
    /// whom nothing was heard yet.
    pub fn count(&self, metrics: &Metrics, revision: Option<&str>) {
        let reachable = self.views().filter(|view| view.reachable);
        let (current, behind): (Vec<_>, Vec<_>) =
            reachable.partition(|view| Some(view.config_revision.as_str()) == revision);
        let silent = silent(self.views());
        for (state, count) in [
            ("current", current.len()),
            ("behind", behind.len()),
            ("silent", silent),
        ] {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            metrics.agents.with_label_values(&[state]).set(count);
        }
    }
}

#[cfg(test)]
mod tests {
    use onespace_core::report::Report;

    use super::*;

    fn update(answer: Result<Report, &str>) -> Update {
        Update {
            agent: "a".to_owned(),
            answer: answer.map(|report| vec![report.into()]).map_err(str::to_owned),
        }
    }

    #[test]
    fn a_silent_agent_is_news_once_and_so_is_its_return() {
        let asked = BTreeMap::from([("a".to_owned(), "http://a".to_owned())]);
        let mut agents = Agents::default();
        agents.expect(&asked);
        assert!(!agents.is_complete());
        assert_eq!(
            agents.take(update(Ok(Report::default())), 1),
            Some(News::of_all())
        );
        assert!(agents.is_complete());
        assert_eq!(
            agents.take(update(Ok(Report::default())), 2),
            None,
            "nothing changed"
        );
        assert_eq!(agents.take(update(Err("silence")), 3), Some(News::of_all()));
        assert_eq!(agents.take(update(Err("silence")), 4), None);
        assert!(agents.views().all(|view| !view.reachable && view.as_of == 2));
        assert_eq!(
            agents.take(update(Ok(Report::default())), 5),
            Some(News::of_all())
        );
    }

    #[test]
    fn an_answer_is_news_of_what_it_names_and_of_what_is_refused_or_no_more() {
        let asked = BTreeMap::from([("a".to_owned(), "http://a".to_owned())]);
        let mut agents = Agents::default();
        agents.expect(&asked);
        agents.take(update(Ok(Report::default())), 1);
        let mut of = |change: &dyn Fn(&mut Report)| {
            let mut report = Report::default();
            change(&mut report);
            let news = agents.take(update(Ok(report)), 2)?;
            let of = ["one", "two", "three"].map(|id| news.concern(id));
            Some(of)
        };
        let mapping = |id: &str| onespace_core::report::MappingReport {
            id: id.to_owned(),
            ..Default::default()
        };
        let refused = |report: &mut Report, id: &str| {
            report.config.refused = vec![onespace_core::report::Refused {
                id: id.to_owned(),
                reason: "FeatureUnknown".to_owned(),
                message: "update it".to_owned(),
            }];
        };
        assert_eq!(of(&|_| {}), None);
        assert_eq!(
            of(&|report| report.mappings = vec![mapping("one"), mapping("two")]),
            Some([true, true, false])
        );
        assert_eq!(
            of(&|report| report.removed = vec![onespace_core::mapping::MappingId("two".to_owned())]),
            Some([false, true, false])
        );
        assert_eq!(of(&|report| refused(report, "three")), Some([false, false, true]));
        assert_eq!(of(&|report| refused(report, "three")), None);
        assert_eq!(of(&|report| refused(report, "one")), Some([true, false, true]));
        assert_eq!(of(&|report| report.full = true), Some([true; 3]));
        let revised = |report: &mut Report| report.config.revision = "r2".to_owned();
        assert_eq!(of(&revised), Some([false; 3]), "the metrics tell of it");
    }

    #[test]
    fn agents_are_counted_by_whether_they_run_the_newest_files() {
        let mut agents = Agents::default();
        let asked = ["a", "b", "c"].map(|agent| (agent.to_owned(), format!("http://{agent}")));
        agents.expect(&BTreeMap::from(asked));
        let with = |revision: &str| {
            let mut report = Report::default();
            report.config.revision = revision.to_owned();
            report
        };
        for (agent, answer) in [
            ("a", Ok(with("r2"))),
            ("b", Ok(with("r1"))),
            ("c", Err("silence")),
        ] {
            let update = Update {
                agent: agent.to_owned(),
                ..update(answer)
            };
            agents.take(update, 1);
        }
        let metrics = Metrics::new().unwrap();
        let counted = |revision| {
            agents.count(&metrics, revision);
            ["current", "behind", "silent"].map(|state| metrics.agents.with_label_values(&[state]).get())
        };
        assert_eq!(counted(Some("r2")), [1, 1, 1]);
        assert_eq!(counted(Some("r3")), [0, 2, 1]);
        assert_eq!(counted(None), [0, 2, 1], "no files yet");
    }

    #[test]
    fn an_agent_whose_pod_is_gone_is_silent_and_waited_for_no_more() {
        let asked = BTreeMap::from([("a".to_owned(), "http://a".to_owned())]);
        let mut agents = Agents::default();
        agents.expect(&asked);
        agents.expect(&BTreeMap::new());
        assert!(agents.is_complete());
        agents.expect(&asked);
        agents.take(update(Ok(Report::default())), 1);
        assert_eq!(agents.has_taken("a", ""), Taken::Yes);
        assert_eq!(agents.has_taken("a", "r1"), Taken::NotYet);
        let mut mixed = Report::default();
        mixed.config.error =
            Some("mappings/00.json is not the one that mappings/index.json names".to_owned());
        agents.take(update(Ok(mixed)), 1);
        assert_eq!(agents.has_taken("a", "r1"), Taken::Failed);
        agents.expect(&BTreeMap::new());
        assert_eq!(agents.has_taken("a", ""), Taken::Unknown);
        assert_eq!(agents.views().count(), 1, "its last words stay");
    }

    #[test]
    fn an_agent_that_never_answered_is_silent_until_its_pod_is_gone() {
        let mut agents = Agents::default();
        let asked = ["a", "b"].map(|agent| (agent.to_owned(), format!("http://{agent}")));
        agents.expect(&BTreeMap::from(asked.clone()));
        let mut named = Report::default();
        named.mappings.push(onespace_core::report::MappingReport {
            ring_nodes: ["10.0.0.1:6201".to_owned()].into(),
            ..Default::default()
        });
        named.agent.node = "10.0.0.1:6201".to_owned();
        agents.take(update(Ok(named)), 1);
        let silent_one = Update {
            agent: "b".to_owned(),
            ..update(Err("silence"))
        };
        agents.take(silent_one, 1);
        assert_eq!(silent(agents.views()), 1, "the ring may name it");
        agents.expect(&BTreeMap::from([asked[0].clone()]));
        assert_eq!(silent(agents.views()), 0);
    }

    #[test]
    fn an_answer_that_is_read_after_its_agents_pod_went_does_not_bring_the_agent_back() {
        let asked = BTreeMap::from([("a".to_owned(), "http://a".to_owned())]);
        let mut agents = Agents::default();
        agents.expect(&asked);
        agents.take(update(Ok(Report::default())), 1);
        agents.expect(&BTreeMap::new());
        assert_eq!(agents.take(update(Ok(Report::default())), 2), None);
        assert!(agents.views().all(|view| !view.reachable && view.as_of == 1));
    }
}
