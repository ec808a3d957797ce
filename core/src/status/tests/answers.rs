//! What an agent's next answer changes.

use super::*;
use crate::mapping::MappingId;
use crate::report::{ConfigReport, Refused};

#[test]
fn an_answer_with_changes_alone_leaves_the_rest() {
    let mut view = agent("n", report(RunState::Running));
    let mut other = report(RunState::Suspended);
    other.id = "b2".to_owned();
    let changes = Report {
        revision: "boot:2".to_owned(),
        mappings: vec![other],
        ..Report::default()
    };
    view.take(changes.into(), true, NOW);
    assert_eq!(view.mappings.keys().collect::<Vec<_>>(), ["a1", "b2"]);
    assert_eq!(view.revision.as_deref(), Some("boot:2"));
    let gone = Report {
        removed: vec![MappingId("a1".to_owned())],
        ..Report::default()
    };
    view.take(gone.into(), true, NOW);
    assert_eq!(view.mappings.keys().collect::<Vec<_>>(), ["b2"]);
}

/// The next answer of an agent, which reports no mapping any more: it refuses this one, or knows nothing of it.
pub(super) fn answers_without(agent: &mut AgentView, full: bool, refuses: bool) {
    let refused = Refused {
        id: "a1".to_owned(),
        reason: "CredentialsMissing".to_owned(),
        message: "no keys".to_owned(),
    };
    let answer = Report {
        agent: AgentInfo {
            node: agent.node.clone(),
            ..AgentInfo::default()
        },
        config: ConfigReport {
            refused: refuses.then_some(refused).into_iter().collect(),
            ..ConfigReport::default()
        },
        revision: "boot:2".to_owned(),
        full,
        removed: if full {
            Vec::new()
        } else {
            vec![MappingId("a1".to_owned())]
        },
        ..Report::default()
    };
    agent.take(answer.into(), true, NOW + 5);
}

#[test]
fn what_agents_had_counted_before_they_refused_a_policy_stays() {
    let mut agents = both();
    let before = of(&agents, &SyncPolicyStatus::default());
    answers_without(&mut agents[0], false, true);
    let one = of(&agents, &before);
    answers_without(&mut agents[1], true, true);
    let all = of(&agents, &one);
    for status in [&one, &all] {
        assert_eq!(status.progress, before.progress, "rows that wait still do");
        assert_eq!(status.failed, before.failed);
        let agents = status.agents.clone().unwrap();
        assert_eq!((agents.reporting, agents.current), (2, 2), "each counts once");
    }
    assert_eq!(
        said(&all, "Ready"),
        (ConditionStatus::False, "CredentialsMissing")
    );

    // Another operator never heard the numbers: those of the status stay.
    for agent in &mut agents {
        agent.before_refusal.clear();
    }
    assert_eq!(of(&agents, &all).progress, before.progress);

    // Gone: nothing is left of it.
    for agent in &mut agents {
        answers_without(agent, true, false);
        assert!(agent.before_refusal.is_empty());
    }
    assert_eq!(sum("a1", 2, &agents), Sum::default());
}
