//! What kubectl, Flux and Argo CD make of a policy's status: the real kstatus (sigs.k8s.io/cli-utils) and the Lua that Argo CD
//! runs health checks in, on statuses that the operator's own rules make.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::io::Write as _;
use std::process::{Command, Stdio};

use onespace_core::finalizer::tell_of_hold;
use onespace_core::reason::PolicyFault;
use onespace_core::report::{AgentInfo, HeldDeletes, MappingReport, Report, RunState};
use onespace_core::status::{AgentView, Standing, status, sum};
use onespace_core::validate::Finding;
use onespace_crds::SyncPolicyStatus;
use onespace_e2e::kube::Kubernetes;
use onespace_e2e::tools::{tool, workspace};
use serde_json::{Value, json};

const NOW: i64 = 1_800_000_000;

/// The generation that every policy here has.
const GENERATION: i64 = 2;

/// What others make of an object: kstatus, Argo CD.
type Seen = (String, String);

/// What the program says of each object.
fn seen(objects: &[Value]) -> Vec<Seen> {
    let mut child = Command::new(tool("bin/health").unwrap())
        .arg(workspace().join("deploy/argocd/health.lua"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    for object in objects {
        stdin.write_all(object.to_string().as_bytes()).unwrap();
    }
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let lines = String::from_utf8(output.stdout).unwrap();
    let lines = lines.lines().map(|line| serde_json::from_str(line).unwrap());
    let text = |line: &Value, at: &str| line.pointer(at).and_then(Value::as_str).unwrap().to_owned();
    lines
        .map(|line: Value| (text(&line, "/kstatus/status"), text(&line, "/argo/status")))
        .collect()
}

fn policy(status: &SyncPolicyStatus) -> Value {
    json!({
        "apiVersion": "onespace.dev/v1alpha1", "kind": "SyncPolicy",
        "metadata": {"name": "photos", "namespace": "swift", "generation": GENERATION},
        "spec": {},
        "status": status,
    })
}

/// An agent that reports the policy; `change` is what is special about it.
fn agent(node: &str, change: impl FnOnce(&mut AgentView, &mut MappingReport)) -> AgentView {
    let mut report: MappingReport = serde_json::from_value(json!({
        "id": "a1", "policy": {"namespace": "swift", "name": "photos", "generation": GENERATION}, "state": "Running",
        "ringNodes": ["10.0.0.1:6201", "10.0.0.2:6201"],
        "databases": {"open": 1, "unreadable": 0}, "initialPassComplete": true,
        "pending": {"rows": 3, "exact": true}, "verify": {"rows": 0},
        "held": {"rows": 0, "full": false, "latest": []}, "handled": {},
        "totals": {"objects": 5, "bytes": 50, "deletes": 1, "released": 0, "verified": 0, "repaired": 0},
        "remote": {"reachable": true, "capabilities": {}, "probedAt": "2026-01-01T00:00:00Z"},
    }))
    .unwrap();
    let mut view = AgentView::default();
    view.reachable = true;
    change(&mut view, &mut report);
    let reachable = view.reachable;
    let answer = Report {
        agent: AgentInfo {
            node: node.to_owned(),
            ..AgentInfo::default()
        },
        revision: "boot:1".to_owned(),
        full: true,
        mappings: vec![report],
        ..Report::default()
    };
    view.take(answer.into(), true, NOW);
    view.reachable = reachable;
    view
}

/// Two agents, of which the second is special.
fn agents(change: impl FnOnce(&mut AgentView, &mut MappingReport)) -> Vec<AgentView> {
    vec![agent("10.0.0.1:6201", |_, _| {}), agent("10.0.0.2:6201", change)]
}

fn all(change: impl Fn(&mut MappingReport)) -> Vec<AgentView> {
    ["10.0.0.1:6201", "10.0.0.2:6201"]
        .map(|node| agent(node, |_, report| change(report)))
        .to_vec()
}

fn accepted(lacking: &[Finding], agents: &[AgentView]) -> Value {
    let sum = sum("a1", GENERATION, agents);
    let before = SyncPolicyStatus::default();
    policy(&status(
        GENERATION,
        None,
        Standing::Accepted {
            lacking,
            outdated: &[],
        },
        &sum,
        &before,
        NOW,
    ))
}

fn paused(report: &mut MappingReport, reason: &str) {
    report.state = RunState::Paused;
    report.reason = Some(reason.to_owned());
}

fn held(report: &mut MappingReport) {
    report.held_deletes = Some(HeldDeletes {
        id: "batch-7".to_owned(),
        rows: 70,
        reason: "DeletesHeld".to_owned(),
    });
}

fn behind(report: &mut MappingReport) {
    report.policy.as_mut().unwrap().generation = GENERATION - 1;
}

#[test]
fn kubectl_flux_and_argo_cd_see_how_a_policy_is() {
    let invalid = [Finding::new(
        "spec.exclude",
        PolicyFault::InvalidPattern,
        "no pattern",
    )];
    let no_secret = [Finding::new(
        "spec.target",
        PolicyFault::SecretNotFound,
        "no Secret",
    )];
    let refused = {
        let (sum, before) = (sum("a1", GENERATION, &[]), SyncPolicyStatus::default());
        policy(&status(
            GENERATION,
            None,
            Standing::Refused(&invalid),
            &sum,
            &before,
            NOW,
        ))
    };
    let edited = {
        let mut edited = accepted(&[], &all(|_| {}));
        edited["metadata"]["generation"] = json!(GENERATION + 1);
        edited
    };
    let leaving = {
        let sum = sum("a1", GENERATION, &all(|_| {}));
        let before = SyncPolicyStatus::default();
        let whole = Standing::Accepted {
            lacking: &[],
            outdated: &[],
        };
        let mut held = status(GENERATION, None, whole, &sum, &before, NOW);
        tell_of_hold(&mut held, &before, "uid-1", NOW);
        let mut leaving = policy(&held);
        leaving["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        leaving
    };
    let states = [
        ("edited, and not seen yet", edited, "InProgress", "Progressing"),
        (
            "accepted, no agent reports",
            accepted(&[], &[]),
            "InProgress",
            "Progressing",
        ),
        (
            "one agent runs an older generation",
            accepted(&[], &agents(|_, report| behind(report))),
            "InProgress",
            "Progressing",
        ),
        (
            "no database anywhere",
            accepted(&[], &all(|report| report.databases.open = 0)),
            "InProgress",
            "Progressing",
        ),
        ("running", accepted(&[], &all(|_| {})), "Current", "Healthy"),
        (
            "suspended",
            accepted(&[], &all(|report| report.state = RunState::Suspended)),
            "Current",
            "Suspended",
        ),
        ("not accepted", refused, "Failed", "Degraded"),
        (
            "without its Secret",
            accepted(&no_secret, &[]),
            "Failed",
            "Degraded",
        ),
        (
            "with wrong keys",
            accepted(&[], &all(|report| paused(report, "InvalidCredentials"))),
            "Failed",
            "Degraded",
        ),
        (
            "with a remote that does not answer",
            accepted(&[], &all(|report| paused(report, "Unreachable"))),
            "InProgress",
            "Degraded",
        ),
        (
            "with deletes that wait for a person",
            accepted(&[], &agents(|_, report| held(report))),
            "Failed",
            "Degraded",
        ),
        (
            "with deletes that wait, and an agent behind",
            accepted(
                &[],
                &agents(|_, report| {
                    held(report);
                    behind(report);
                }),
            ),
            "Failed",
            "Degraded",
        ),
        (
            "with a silent agent",
            accepted(&[], &agents(|view, _| view.reachable = false)),
            "Current",
            "Degraded",
        ),
        ("deleted, and held", leaving, "Terminating", "Progressing"),
    ];
    let objects: Vec<Value> = states.iter().map(|(_, object, _, _)| object.clone()).collect();
    for ((name, object, kstatus, argo), (said, healthy)) in states.iter().zip(seen(&objects)) {
        assert_eq!(
            (said.as_str(), healthy.as_str()),
            (*kstatus, *argo),
            "{name}: {object}"
        );
    }
}

#[tokio::test]
async fn a_policy_that_the_operator_has_not_seen_yet_is_in_progress() {
    let kubernetes = Kubernetes::start().await.unwrap();
    let crd = serde_json::to_value(onespace_crds::sync_policy_crd().unwrap()).unwrap();
    kubernetes.install_crd(&crd).await.unwrap();
    let policy = json!({
        "apiVersion": "onespace.dev/v1alpha1", "kind": "SyncPolicy", "metadata": {"name": "photos"},
        "spec": {"mode": "Sync", "source": {"account": "AUTH_test", "container": "photos"},
            "target": {"protocol": "S3", "bucket": "backup", "credentials": {"secretRef": {"name": "keys"}}}},
    });
    let all = "/apis/onespace.dev/v1alpha1/namespaces/default/syncpolicies";
    let created = kubernetes.create(all, &policy).await.unwrap();
    assert_eq!(
        seen(&[created]),
        [("InProgress".to_owned(), "Progressing".to_owned())]
    );
}
