//! Checking all policies of the input together.

use std::path::PathBuf;

use onespace_core::reason::PolicyFault;
use onespace_core::validate::{Candidate, Finding, ValidPolicy, settle, validate};

use crate::admission::Admission;
use crate::input::{Key, Objects};

/// What is to be said of one policy.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// Its file.
    pub path: PathBuf,
    /// Namespace and name.
    pub key: Key,
    /// The policy, or everything that is wrong with it.
    pub result: Result<ValidPolicy, Vec<Finding>>,
}

impl Verdict {
    /// One line for each finding: file, policy, field, reason, message.
    #[must_use]
    pub fn lines(&self, findings: &[Finding]) -> Vec<String> {
        let (namespace, name) = &self.key;
        let line = |finding| format!("{}: {namespace}/{name}: {finding}", self.path.display());
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
        Some(Candidate {
            policy,
            incumbent: false,
            created: None,
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
