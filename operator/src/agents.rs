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

impl Agents {
    /// From now on these are asked. What others said last stays: they are silent.
    pub fn expect(&mut self, agents: &BTreeMap<String, String>) {
        self.asked = agents.keys().cloned().collect();
        self.awaited.retain(|agent| agents.contains_key(agent));
        for agent in agents.keys() {
            if !self.views.contains_key(agent) {
                self.awaited.insert(agent.clone());
            }
        }
        for (agent, view) in &mut self.views {
            view.reachable &= agents.contains_key(agent);
        }
    }

    /// Takes an answer. Returns whether it says anything new.
    pub fn take(&mut self, update: Update, now: i64) -> bool {
        let Update { agent, answer } = update;
        // Said before its pod went: it would count as an answer of today for ever.
        if !self.asked.contains(&agent) {
            return false;
        }
        let first_word = self.awaited.remove(&agent);
        let view = self.views.entry(agent.clone()).or_default();
        match answer {
            Ok(pages) => {
                let first = pages.first();
                let news = first_word
                    || !view.reachable
                    || first.is_some_and(|page| page.config.revision != view.config_revision)
                    || pages
                        .iter()
                        .any(|page| page.full || !page.mappings.is_empty() || !page.removed.is_empty());
                for (number, page) in pages.into_iter().enumerate() {
                    view.take(page, number == 0, now);
                }
                news
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
                news
            }
        }
    }

    /// Whether every agent was heard of once.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.awaited.is_empty()
    }

    /// Whether an agent answers and runs this revision of the files.
    #[must_use]
    pub fn runs(&self, agent: &str, revision: &str) -> bool {
        let view = self.views.get(agent);
        view.is_some_and(|view| view.reachable && view.config_revision == revision)
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
            answer: answer.map(|page| vec![page]).map_err(str::to_owned),
        }
    }

    #[test]
    fn a_silent_agent_is_news_once_and_so_is_its_return() {
        let asked = BTreeMap::from([("a".to_owned(), "http://a".to_owned())]);
        let mut agents = Agents::default();
        agents.expect(&asked);
        assert!(!agents.is_complete());
        assert!(agents.take(update(Ok(Report::default())), 1));
        assert!(agents.is_complete());
        assert!(!agents.take(update(Ok(Report::default())), 2), "nothing changed");
        assert!(agents.take(update(Err("silence")), 3));
        assert!(!agents.take(update(Err("silence")), 4));
        assert!(agents.views().all(|view| !view.reachable && view.as_of == 2));
        assert!(agents.take(update(Ok(Report::default())), 5));
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
        assert!(agents.runs("a", ""));
        agents.expect(&BTreeMap::new());
        assert!(!agents.runs("a", ""));
        assert_eq!(agents.views().count(), 1, "its last words stay");
    }

    #[test]
    fn an_answer_that_is_read_after_its_agents_pod_went_does_not_bring_the_agent_back() {
        let asked = BTreeMap::from([("a".to_owned(), "http://a".to_owned())]);
        let mut agents = Agents::default();
        agents.expect(&asked);
        agents.take(update(Ok(Report::default())), 1);
        agents.expect(&BTreeMap::new());
        assert!(!agents.take(update(Ok(Report::default())), 2));
        assert!(agents.views().all(|view| !view.reachable && view.as_of == 1));
    }
}
