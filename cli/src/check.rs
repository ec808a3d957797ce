//! Checking all policies of the input together.

use std::path::PathBuf;

use onespace_core::reason::PolicyFault;
use onespace_core::validate::{Candidate, Finding, ValidPolicy, settle, validate};
use serde_json::Value;

use crate::admission::Admission;
use crate::input::{Key, Objects};

/// What is to be said of one policy.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// Its file; none in a cluster.
    pub path: Option<PathBuf>,
    /// Namespace and name.
    pub key: Key,
    /// The policy, or everything that is wrong with it.
    pub result: Result<ValidPolicy, Vec<Finding>>,
}

impl Verdict {
    /// File and policy; the policy alone if it comes from a cluster.
    #[must_use]
    pub fn subject(&self) -> String {
        let (namespace, name) = &self.key;
        match &self.path {
            Some(path) => format!("{}: {namespace}/{name}", path.display()),
            None => format!("{namespace}/{name}"),
        }
    }

    /// One line for each finding: file, policy, field, reason, message.
    #[must_use]
    pub fn lines(&self, findings: &[Finding]) -> Vec<String> {
        let subject = self.subject();
        let line = |finding| format!("{subject}: {finding}");
        findings.iter().map(line).collect()
    }
}

/// Checks every policy by itself, then all that are valid against each other.
///
/// # Errors
/// Never with the types as they are.
pub fn check(objects: &Objects) -> anyhow::Result<Vec<Verdict>> {
    let admission = Admission::new()?;
    let mut verdicts: Vec<Verdict> = objects
        .policies
        .iter()
        .map(|(key, object)| Verdict {
            path: object.path.clone(),
            key: key.clone(),
            result: admission
                .decode(&object.value, None)
                .and_then(|policy| validate(&policy)),
        })
        .collect();

    let candidates = verdicts.iter().filter_map(|verdict| {
        let policy = verdict.result.as_ref().ok()?.clone();
        let object = &objects.policies.get(&verdict.key)?.value;
        Some(Candidate {
            policy,
            incumbent: is_accepted(object),
            created: created(object),
        })
    });
    let (_, conflicts) = settle(candidates.collect());
    for conflict in conflicts {
        let loser = (conflict.loser.namespace.clone(), conflict.loser.name.clone());
        // Whoever has both files may know both names.
        let message = format!(
            "{} ({}/{})",
            conflict.message(),
            conflict.winner.namespace,
            conflict.winner.name
        );
        for verdict in verdicts.iter_mut().filter(|verdict| verdict.key == loser) {
            verdict.result = Err(vec![Finding::new(
                "spec.target",
                PolicyFault::Conflict,
                message.clone(),
            )]);
        }
    }
    Ok(verdicts)
}

/// Whether the operator has it among the mappings, as far as the object says. Files written by hand say nothing.
fn is_accepted(object: &Value) -> bool {
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == "Accepted" && condition["status"] == "True")
}

/// When it was made, in seconds since 1970.
fn created(object: &Value) -> Option<i64> {
    let time = object
        .pointer("/metadata/creationTimestamp")
        .and_then(Value::as_str)?;
    let time: jiff::Timestamp = time.parse().ok()?;
    Some(time.as_second())
}
