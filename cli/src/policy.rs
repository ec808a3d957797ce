//! A policy as the cluster has it. What cannot be read of one keeps nobody from seeing the others.

use kube::api::DynamicObject;
use onespace_crds::{Condition, ConditionStatus, SyncPolicyStatus};
use serde_json::Value;

/// What is shown of a policy.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Its generation.
    pub generation: i64,
    /// `spec.mode`.
    pub mode: String,
    /// Its status; none if there is none that can be read.
    pub status: Option<SyncPolicyStatus>,
}

impl Policy {
    /// From the cluster's answer.
    #[must_use]
    pub fn read(object: &DynamicObject) -> Self {
        let DynamicObject { metadata, data, .. } = object;
        let mode = data.pointer("/spec/mode").and_then(Value::as_str);
        let status = data.get("status").cloned();
        Self {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
            generation: metadata.generation.unwrap_or_default(),
            mode: mode.unwrap_or_default().to_owned(),
            status: status.and_then(|status| serde_json::from_value(status).ok()),
        }
    }

    /// A condition that is about this generation.
    #[must_use]
    pub fn condition(&self, kind: &str) -> Option<&Condition> {
        let mut conditions = self.status.iter().flat_map(|status| &status.conditions);
        conditions.find(|condition| {
            condition.kind == kind
                && condition
                    .observed_generation
                    .is_none_or(|observed| observed == self.generation)
        })
    }

    /// Whether a condition about this generation has this status.
    #[must_use]
    pub fn is(&self, kind: &str, status: ConditionStatus) -> bool {
        self.condition(kind)
            .is_some_and(|condition| condition.status == status)
    }

    /// What stands in its way, by the operator's own words: the reason and a sentence. None if nothing does.
    #[must_use]
    pub fn obstacles(&self) -> Vec<String> {
        use ConditionStatus::{False, True};
        if self.condition("Accepted").is_none() {
            return vec![
                "the operator has not looked at it yet: is it running, and does it watch this namespace?"
                    .to_owned(),
            ];
        }
        let mut obstacles: Vec<String> = Vec::new();
        for (kind, bad) in [
            ("Accepted", False),
            ("CredentialsReady", False),
            ("Ready", False),
            ("Degraded", True),
            ("Stalled", True),
            ("ObjectiveMet", False),
        ] {
            let Some(condition) = self.condition(kind) else {
                continue;
            };
            // That it is not accepted has been said.
            let is_said = obstacles.iter().any(|said| said.ends_with(&condition.message))
                || kind == "Ready" && self.is("Accepted", False);
            if condition.status == bad && !is_said {
                let words = [condition.reason.as_str(), condition.message.as_str()];
                let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
                obstacles.push(words.join(": "));
            }
        }
        obstacles
    }
}
