//! Whose agents count: those that the ring gives a part, and no others.

use super::answers::answers_without;
use super::*;
use crate::mapping::MappingId;

/// What is said, with as many agents as the ring has container servers and some more.
fn numbers(agents: &[AgentView]) -> (Option<u32>, u32, u32) {
    let said = of(agents, &SyncPolicyStatus::default()).agents.unwrap();
    (said.expected, said.reporting, said.current)
}

fn message(status: &SyncPolicyStatus, kind: &str) -> String {
    let condition = status.conditions.iter().find(|condition| condition.kind == kind);
    condition.unwrap().message.clone()
}

/// An agent of another node: it reports the policy, has no database of it, and knows its ring.
fn bystander(node: &str) -> AgentView {
    let mut report = report(RunState::Running);
    report.databases.open = 0;
    report.held = crate::report::HeldReport::default();
    report.pending.rows = 0;
    agent(node, report)
}

fn is_incomplete_and_degraded(agents: &[AgentView], missing: &str) {
    let status = of(agents, &SyncPolicyStatus::default());
    let degraded = (ConditionStatus::True, "AgentUnreachable");
    assert_eq!(said(&status, "Degraded"), degraded);
    let told = message(&status, "Degraded");
    assert!(told.contains(missing), "{told}");
    assert_eq!(
        said(&status, "InitialSyncComplete"),
        (ConditionStatus::False, "FirstPass")
    );
}

#[test]
fn agents_without_a_part_do_not_stand_in_for_one_that_is_missing() {
    let mut agents = vec![both().remove(0)];
    agents.extend((3..10).map(|node| bystander(&format!("10.0.0.{node}:6201"))));
    assert_eq!(numbers(&agents), (Some(2), 1, 1));
    is_incomplete_and_degraded(&agents, "10.0.0.2:6201");

    // It is there, but has not answered since the operator started: its node is known by another name yet.
    let unheard = AgentView {
        node: "node-2".to_owned(),
        ..AgentView::default()
    };
    agents.push(unheard);
    is_incomplete_and_degraded(&agents, "10.0.0.2:6201");
    assert_eq!(
        silent(agents.iter()),
        1,
        "nobody knows whether its node was taken out"
    );

    agents.push(both().remove(1));
    assert_eq!(numbers(&agents), (Some(2), 2, 2));
    let status = of(&agents, &SyncPolicyStatus::default());
    assert_eq!(said(&status, "Degraded"), (ConditionStatus::False, "Healthy"));
    assert_eq!(said(&status, "InitialSyncComplete").0, ConditionStatus::True);
}

#[test]
fn a_ring_whose_nodes_have_no_agents_at_all_is_told_by_the_others() {
    let agents = [bystander("10.0.0.7:6201"), bystander("10.0.0.8:6201")];
    assert_eq!(numbers(&agents), (Some(2), 0, 0));
    is_incomplete_and_degraded(&agents, "10.0.0.1:6201, 10.0.0.2:6201");
    let status = of(&agents, &SyncPolicyStatus::default());
    assert_eq!(said(&status, "Ready"), (ConditionStatus::False, "NoAgent"));
    let told = message(&status, "Ready");
    assert!(told.contains("10.0.0.1:6201, 10.0.0.2:6201"), "{told}");
}

#[test]
fn one_agent_of_two_container_servers_stands_for_both() {
    let mut one = both().remove(0);
    one.node = "10.0.0.1:6201,10.0.0.2:6201".to_owned();
    let status = of(&[one.clone()], &SyncPolicyStatus::default());
    assert_eq!(numbers(&[one.clone()]), (Some(2), 2, 2));
    assert_eq!(said(&status, "Degraded"), (ConditionStatus::False, "Healthy"));
    assert_eq!(said(&status, "InitialSyncComplete").0, ConditionStatus::True);

    one.reachable = false;
    let agents = [one, bystander("10.0.0.3:6201")];
    assert_eq!(numbers(&agents), (Some(2), 0, 0));
    let status = of(&agents, &SyncPolicyStatus::default());
    let told = message(&status, "Degraded");
    assert!(told.starts_with("1 agents do not answer"), "{told}");
    assert!(!told.contains("no agent answers"), "told once: {told}");
}

#[test]
fn the_first_pass_is_complete_when_it_is_at_every_node_that_may_have_a_part() {
    // A whole account: each node may have containers of it, and one still looks for them.
    let mut agents = both();
    part(&mut agents[1]).databases.open = 0;
    kept(&mut agents[1]).initial_pass_complete = false;
    let complete = |agents: &[AgentView]| {
        let status = of(agents, &SyncPolicyStatus::default());
        said(&status, "InitialSyncComplete").0
    };
    assert_eq!(complete(&agents), ConditionStatus::False);
    kept(&mut agents[1]).initial_pass_complete = true;
    assert_eq!(
        complete(&agents),
        ConditionStatus::True,
        "it has looked and has none"
    );

    // One without a part has nothing to look at, or cannot.
    let mut other = bystander("10.0.0.3:6201");
    kept(&mut other).initial_pass_complete = false;
    agents.push(other);
    assert_eq!(complete(&agents), ConditionStatus::True);

    let refusal = ("FeatureUnknown".to_owned(), "update it".to_owned());
    agents[1].mappings.clear();
    agents[1].refused.insert("a1".to_owned(), refusal);
    assert_eq!(complete(&agents), ConditionStatus::False);
}

#[test]
fn an_agent_with_a_part_that_has_not_read_the_files_yet_is_behind_and_not_missing() {
    let mut agents = both();
    agents[1].mappings.clear();
    assert_eq!(numbers(&agents), (Some(2), 2, 1));
    let status = of(&agents, &SyncPolicyStatus::default());
    assert_eq!(said(&status, "Ready"), (ConditionStatus::False, "AgentsBehind"));
    assert_eq!(said(&status, "Degraded"), (ConditionStatus::False, "Healthy"));
    assert_eq!(said(&status, "InitialSyncComplete").0, ConditionStatus::False);
}

#[test]
fn agents_without_databases_that_cannot_reach_the_remote_keep_nobody_from_being_ready() {
    let paused = |mut agent: AgentView, reason: &str| {
        put(&mut agent, RunState::Paused, reason, "");
        agent
    };
    let mut agents: Vec<AgentView> = (3..6)
        .map(|node| paused(bystander(&format!("10.0.0.{node}:6201")), "Unreachable"))
        .collect();
    agents.extend(both());
    let status = of(&agents, &SyncPolicyStatus::default());
    assert_eq!(said(&status, "Ready"), (ConditionStatus::True, "Running"));
    assert_eq!(said(&status, "Degraded"), (ConditionStatus::True, "Unreachable"));

    for agent in &mut agents[3..] {
        *agent = paused(agent.clone(), "QuotaExceeded");
    }
    let status = of(&agents, &SyncPolicyStatus::default());
    assert_eq!(
        said(&status, "Ready"),
        (ConditionStatus::False, "QuotaExceeded"),
        "those with databases say why"
    );

    // Who works is silent: what those say that answer counts.
    let mut agents = both();
    agents[0].reachable = false;
    agents[1] = paused(agents[1].clone(), "Unreachable");
    let status = of(&agents, &SyncPolicyStatus::default());
    assert_eq!(said(&status, "Ready"), (ConditionStatus::False, "Unreachable"));

    // Agents without a part that refuse it do not matter either.
    let mut agents = both();
    for node in 3..6 {
        let mut other = bystander(&format!("10.0.0.{node}:6201"));
        other.mappings.clear();
        let refusal = ("FeatureUnknown".to_owned(), "update it".to_owned());
        other.refused.insert("a1".to_owned(), refusal);
        agents.push(other);
    }
    let status = of(&agents, &SyncPolicyStatus::default());
    assert_eq!(said(&status, "Ready"), (ConditionStatus::True, "Running"));
}

#[test]
fn a_trigger_is_handled_when_every_agent_that_answers_and_has_a_part_says_so() {
    let handled = |agents: &[AgentView]| sum("a1", 2, agents).handled_retry;
    let mut agents = both();
    agents.push(bystander("10.0.0.3:6201"));
    part(&mut agents[2]).retry = None;
    assert_eq!(handled(&agents).as_deref(), Some("t"));
    part(&mut agents[1]).retry = Some("before".into());
    assert_eq!(handled(&agents), None);
    agents[1].mappings.clear();
    assert_eq!(handled(&agents), None, "it has not read the files yet");
    agents[1].reachable = false;
    assert_eq!(handled(&agents).as_deref(), Some("t"));
}

#[test]
fn little_is_kept_of_agents_without_a_part_and_it_says_the_same() {
    let nothing = |state: RunState, reason: Option<&str>| {
        let mut report = report(state);
        report.reason = reason.map(str::to_owned);
        report.databases.open = 0;
        report.pending = crate::report::Pending::default();
        report.held = crate::report::HeldReport::default();
        report.totals = Totals::default();
        report
    };
    let others = [
        nothing(RunState::Running, None),
        nothing(RunState::Paused, Some("Unreachable")),
        nothing(RunState::Refused, Some("FeatureUnknown")),
        nothing(RunState::Suspended, None),
        nothing(RunState::Running, Some("ContainerServerSilent")),
    ];
    let ways: [&dyn Fn(&mut AgentView); 4] = [
        &|_| {},
        &|agent| agent.reachable = false,
        &|agent| drop(agent.mappings.remove("a1")),
        &|agent| kept(agent).state = RunState::Paused,
    ];
    for change_holders in ways {
        let mut little = both();
        little.iter_mut().for_each(change_holders);
        let mut all = little.clone();
        for (report, number) in others.iter().zip(3..) {
            let view = agent(&format!("10.0.0.{number}:6201"), report.clone());
            assert!(view.mappings["a1"].part.is_none(), "more than a little is kept");
            let mut whole = view.clone();
            *kept(&mut whole) = Kept::whole(report.clone());
            little.push(view);
            all.push(whole);
        }
        let (mut little, mut all) = (sum("a1", 2, &little), sum("a1", 2, &all));
        // What the remote can do is asked of those who use it.
        for sum in [&mut little, &mut all] {
            sum.capabilities.clear();
            sum.probed_at = None;
        }
        assert_eq!(little, all);
    }

    // It comes to have a part, and loses it.
    let mut view = agent("10.0.0.3:6201", others[0].clone());
    let mut report = others[0].clone();
    report.databases.open = 1;
    let answer = |report| Report {
        agent: AgentInfo {
            node: "10.0.0.3:6201".to_owned(),
            ..AgentInfo::default()
        },
        mappings: vec![report],
        ..Report::default()
    };
    view.take(answer(report).into(), true, NOW);
    assert!(kept(&mut view).part.is_some());
    view.take(answer(others[0].clone()).into(), true, NOW);
    assert!(kept(&mut view).part.is_none());
    let gone = Report {
        removed: vec![MappingId("a1".to_owned())],
        ..Report::default()
    };
    view.take(gone.into(), true, NOW);
    assert!(view.mappings.is_empty());
}

#[test]
fn an_agent_that_has_nothing_of_a_policy_and_refuses_it_makes_no_number_old() {
    let mut other = agent("10.0.0.3:6201", report(RunState::Running));
    kept(&mut other).part = None;
    answers_without(&mut other, false, true);
    let mut agents = both();
    agents.push(other);
    for agent in &mut agents[..2] {
        agent.as_of = NOW + 60;
    }
    let status = of(&agents, &SyncPolicyStatus::default());
    let as_of = status.progress.unwrap().as_of.unwrap();
    assert_eq!(as_of.0.as_second(), NOW + 60);
}

#[test]
fn what_is_kept_of_a_report_is_a_fraction_of_it() {
    let report = report(RunState::Running);
    let ends = size_of::<Kept>() + size_of::<Part>();
    assert!(ends * 2 < size_of::<MappingReport>(), "{ends} bytes");
    // No map, of which each takes a kibibyte when there is anything in it.
    let kept = Kept::of(report);
    let part = kept.part.as_deref().unwrap();
    assert_eq!(part.capabilities().collect::<Vec<_>>(), ["conditions"]);
    let ring: Vec<&str> = kept.ring().collect();
    assert_eq!(ring, ["10.0.0.1:6201", "10.0.0.2:6201"]);
}
