//! Everything that the watches have shown, reduced to what is needed of it.

use std::sync::Arc;
use std::time::Instant;

use k8s_openapi::api::core::v1::Pod;
use kube::api::DynamicObject;
use onespace_core::finalizer::{CONFIRM_DELETE, FINALIZER, FinalizerStep, finalizer};
use onespace_core::grant::{Grant, Labels};
use onespace_core::reason::PolicyFault;
use onespace_core::validate::{Finding, ValidPolicy, validate};
use onespace_crds::{AccountGrantSpec, Mode, SyncPolicy, SyncPolicySpec, SyncPolicyStatus};
use serde_json::Value;

use crate::desk::{Written, print_of};
use crate::poke::POKE;
use crate::published::Names;
use crate::table::{Change, Key, Scope, Table, if_different};

/// The name of the port of an agent's pod on which it is asked, with TLS.
const STATUS_PORT: &str = "status";

/// A policy as it was seen last.
#[derive(Clone, Debug)]
pub struct SeenPolicy {
    /// Its uid.
    pub uid: String,
    /// Its generation.
    pub generation: i64,
    /// `creationTimestamp` in seconds since 1970.
    pub created: Option<i64>,
    /// It is being deleted.
    pub deleting: bool,
    /// Its version, for writes that must not meet another's.
    pub version: String,
    /// Its finalizers, ours and others'.
    pub finalizers: Vec<String>,
    /// The annotation with which its deletion is confirmed.
    pub confirmed: Option<String>,
    /// Its mode, as far as it can be read.
    pub mode: Option<Mode>,
    /// What it says, or everything that is wrong with it.
    pub verdict: Result<ValidPolicy, Vec<Finding>>,
    /// The status that it has, or is about to have: shared with whoever writes it.
    pub status: Arc<SyncPolicyStatus>,
    /// When this status was decided on.
    pub decided: Option<Instant>,
    /// What the API server made of the one that was written last.
    pub written: Written,
    /// What it has now, as far as was seen.
    pub shown: u64,
}

impl SeenPolicy {
    /// The id of its mapping; empty if it is not valid.
    #[must_use]
    pub fn mapping_id(&self) -> &str {
        let valid = self.verdict.as_ref().ok();
        valid.map_or("", |valid| &valid.mapping.id.0)
    }

    /// What is to be done about the finalizer. `released`: agents report that rows were released.
    #[must_use]
    pub fn finalizer(&self, released: bool) -> FinalizerStep {
        // One that cannot be read may have released something.
        let mode = self.mode.unwrap_or(Mode::Archive);
        let is_on = self.finalizers.iter().any(|name| name == FINALIZER);
        finalizer(
            mode,
            released,
            is_on,
            self.deleting,
            self.confirmed.as_deref(),
            &self.uid,
        )
    }

    /// Whether somebody else has changed the status that was written last; or the echo of it is still on its way.
    #[must_use]
    pub fn is_overwritten(&self) -> bool {
        self.written.is_other_than(self.shown)
    }

    /// Whether it is deleted and nothing of ours holds it.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.deleting && self.finalizer(false) != FinalizerStep::Hold
    }
}

/// An agent's pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenPod {
    /// The value of the annotation that makes its kubelet look.
    pub poke: Option<String>,
    /// Its node, by which the agent is known: its pods come and go.
    pub node: String,
    /// Where its agent can be asked: none while it has no address, or no port of this name.
    pub url: Option<String>,
}

/// One event of any watch.
#[derive(Clone, Debug)]
pub enum Event {
    /// A SyncPolicy.
    Policy(Scope, Change<Box<SeenPolicy>>),
    /// An AccountGrant; none if it cannot be read: it then grants nothing.
    Grant(Scope, Change<Option<Grant>>),
    /// A namespace.
    Namespace(Scope, Change<Labels>),
    /// A Secret's version.
    Secret(Scope, Change<String>),
    /// A ConfigMap's version.
    ConfigMap(Scope, Change<String>),
    /// An agent's pod.
    Pod(Scope, Change<SeenPod>),
}

impl Event {
    /// The scope of a watch that is refused.
    fn refused(&self) -> Option<&Scope> {
        match self {
            Self::Policy(scope, Change::Refused)
            | Self::Grant(scope, Change::Refused)
            | Self::Namespace(scope, Change::Refused)
            | Self::Secret(scope, Change::Refused)
            | Self::ConfigMap(scope, Change::Refused)
            | Self::Pod(scope, Change::Refused) => Some(scope),
            _ => None,
        }
    }
}

/// What an event means for the files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effect {
    /// They may have to change.
    pub inputs: bool,
    /// One of them was touched.
    pub outputs: bool,
    /// Something about the agents' pods.
    pub pods: bool,
}

impl std::ops::BitOrAssign for Effect {
    fn bitor_assign(&mut self, other: Self) {
        let Self {
            inputs,
            outputs,
            pods,
        } = other;
        self.inputs |= inputs;
        self.outputs |= outputs;
        self.pods |= pods;
    }
}

/// Everything that was seen.
#[derive(Debug)]
pub struct Seen {
    /// SyncPolicies.
    pub policies: Table<Box<SeenPolicy>>,
    /// AccountGrants.
    pub grants: Table<Option<Grant>>,
    /// Namespaces' labels.
    pub namespaces: Table<Labels>,
    /// Secrets' versions.
    pub secrets: Table<String>,
    /// ConfigMaps' versions.
    pub config_maps: Table<String>,
    /// Agents' pods.
    pub pods: Table<SeenPod>,
    names: Names,
    /// Namespaces that are watched one by one, but for the operator's own.
    watched: Vec<String>,
}

/// Which scopes each kind is watched in.
#[derive(Clone, Debug)]
pub struct Scopes {
    /// SyncPolicies.
    pub policies: Vec<Scope>,
    /// AccountGrants and namespaces: none if only the operator's own namespace is watched.
    pub cluster: Vec<Scope>,
    /// Secrets and ConfigMaps: those of policies, and our own.
    pub objects: Vec<Scope>,
    /// Pods: the operator's own namespace.
    pub pods: Vec<Scope>,
}

impl Scopes {
    /// From the options `--namespace` and `--watch-namespace`.
    #[must_use]
    pub fn new(own: &str, watched: &[String]) -> Self {
        let own_scope: Scope = Some(own.to_owned());
        let policies: Vec<Scope> = match watched {
            [] => vec![own_scope.clone()],
            watched if watched.iter().any(|name| name == "*") => vec![None],
            watched => watched.iter().map(|name| Some(name.clone())).collect(),
        };
        let mut objects = policies.clone();
        if !objects.contains(&None) && !objects.contains(&own_scope) {
            objects.push(own_scope.clone());
        }
        let others = policies.iter().any(|scope| *scope != own_scope);
        Self {
            cluster: if others { vec![None] } else { Vec::new() },
            policies,
            objects,
            pods: vec![own_scope],
        }
    }
}

impl Seen {
    /// Nothing yet.
    #[must_use]
    pub fn new(scopes: &Scopes, names: Names) -> Self {
        Self {
            policies: Table::new(&scopes.policies),
            grants: Table::new(&scopes.cluster),
            namespaces: Table::new(&scopes.cluster),
            secrets: Table::new(&scopes.objects),
            config_maps: Table::new(&scopes.objects),
            pods: Table::new(&scopes.pods),
            watched: scopes
                .policies
                .iter()
                .flatten()
                .filter(|name| **name != names.namespace)
                .cloned()
                .collect(),
            names,
        }
    }

    /// Whether every watch has shown everything once. Before that, what is missing may just not have been seen.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let Self {
            policies,
            grants,
            namespaces,
            secrets,
            config_maps,
            pods,
            names: _,
            watched: _,
        } = self;
        policies.is_complete()
            && grants.is_complete()
            && namespaces.is_complete()
            && secrets.is_complete()
            && config_maps.is_complete()
            && pods.is_complete()
    }

    /// Watched namespaces that are there, and in which the API server does not let us see policies, Secrets or ConfigMaps.
    /// The operator's own is none of them: without that, nothing works.
    pub fn unreadable(&self) -> impl Iterator<Item = &String> {
        self.watched.iter().filter(|name| {
            let scope = Some((*name).clone());
            self.has_namespace(name)
                && (self.policies.is_refused(&scope)
                    || self.secrets.is_refused(&scope)
                    || self.config_maps.is_refused(&scope))
        })
    }

    /// Whether a policy may be there that nobody shows us: it was never seen, and the list of its namespace is refused.
    #[must_use]
    pub fn may_be_hidden(&self, key: &Key) -> bool {
        let (namespace, _) = key;
        self.policies.get(key).is_none()
            && self.watched.contains(namespace)
            && self.has_namespace(namespace)
            && self.policies.is_refused(&Some(namespace.clone()))
    }

    fn has_namespace(&self, name: &str) -> bool {
        self.namespaces.get(&(String::new(), name.to_owned())).is_some()
    }

    /// Takes one event.
    pub fn take(&mut self, event: Event) -> Effect {
        // Somebody else's namespace is done without. What is needed for all is waited for.
        if let Some(scope) = event.refused()
            && !scope.as_ref().is_some_and(|name| self.watched.contains(name))
        {
            return Effect::default();
        }
        let inputs = |inputs| Effect {
            inputs,
            ..Effect::default()
        };
        match event {
            Event::Policy(scope, change) => inputs(self.policies.take(&scope, change, keep_status)),
            Event::Grant(scope, change) => inputs(self.grants.take(&scope, change, if_different)),
            Event::Namespace(scope, change) => {
                let changed = self.namespaces.take(&scope, change, if_different);
                if changed {
                    self.forget_absent_namespaces();
                }
                inputs(changed)
            }
            Event::Secret(scope, change) => {
                let ours = self.is_ours(&change);
                let changed = self.secrets.take(&scope, change, if_different);
                touched(ours, changed)
            }
            Event::ConfigMap(scope, change) => {
                let ours = self.is_ours(&change);
                let changed = self.config_maps.take(&scope, change, if_different);
                touched(ours, changed)
            }
            Event::Pod(scope, change) => Effect {
                pods: self.pods.take(&scope, change, if_different),
                ..Effect::default()
            },
        }
    }

    /// A watched namespace may not be there, or go, and the right to watch it with it: neither do its policies stay, nor is
    /// it waited for, which would keep all others waiting.
    fn forget_absent_namespaces(&mut self) {
        if !self.namespaces.is_complete() {
            return;
        }
        for namespace in &self.watched {
            if self.namespaces.get(&(String::new(), namespace.clone())).is_none() {
                self.policies.void(namespace);
                self.secrets.void(namespace);
                self.config_maps.void(namespace);
            }
        }
    }

    fn is_ours(&self, change: &Change<String>) -> Option<bool> {
        match change {
            Change::Put(key, _) | Change::Gone(key) | Change::Listed(key, _) => Some(self.names.are(key)),
            Change::Restart | Change::Complete | Change::Refused => None,
        }
    }

    /// Whether a policy needs no grant, or has one.
    #[must_use]
    pub fn is_granted(&self, policy: &ValidPolicy) -> bool {
        let namespace = &policy.mapping.policy.namespace;
        if *namespace == self.names.namespace {
            return true;
        }
        let Some(labels) = self.namespaces.get(&(String::new(), namespace.clone())) else {
            return false;
        };
        let mut grants = self.grants.iter().filter_map(|(_, grant)| grant.as_ref());
        grants.any(|grant| grant.covers(policy, labels))
    }
}

fn touched(ours: Option<bool>, changed: bool) -> Effect {
    Effect {
        inputs: changed && ours != Some(true),
        outputs: changed && ours != Some(false),
        pods: false,
    }
}

/// The status that was decided on stays until the next decision; an echo of it is nothing new, and what somebody else made of
/// it is put right then.
fn keep_status(old: Option<Box<SeenPolicy>>, mut new: Box<SeenPolicy>) -> (Box<SeenPolicy>, bool) {
    let Some(old) = old.filter(|old| old.uid == new.uid) else {
        return (new, true);
    };
    let matters = old.verdict != new.verdict
        || old.generation != new.generation
        || old.is_leaving() != new.is_leaving()
        || old.deleting != new.deleting
        || old.created != new.created;
    if old.decided.is_some() {
        new.status = old.status;
        new.decided = old.decided;
    }
    new.written = old.written;
    (new, matters)
}

/// Reads a policy. What cannot be read is a finding, so that one malformed object concerns nobody else.
#[must_use]
pub fn read_policy(object: DynamicObject) -> SeenPolicy {
    let DynamicObject {
        metadata, mut data, ..
    } = object;
    let spec = data.get_mut("spec").map(Value::take).unwrap_or_default();
    // A status that cannot be read is written anew.
    let status = data.get_mut("status").map(Value::take).unwrap_or_default();
    let shown = print_of(&status);
    let status = serde_json::from_value::<SyncPolicyStatus>(status).unwrap_or_default();
    let mode = spec.get("mode").cloned();
    let mode = mode.and_then(|mode| serde_json::from_value(mode).ok());
    let verdict = match serde_json::from_value::<SyncPolicySpec>(spec) {
        Ok(spec) => validate(&SyncPolicy {
            metadata: metadata.clone(),
            spec,
            status: None,
        }),
        Err(error) => Err(vec![Finding::new(
            "spec",
            PolicyFault::Invalid,
            format!(
                "this version of onespace cannot read it ({error}): correct it, install the CRD that belongs to the operator, or update the operator"
            ),
        )]),
    };
    SeenPolicy {
        uid: metadata.uid.unwrap_or_default(),
        version: metadata.resource_version.unwrap_or_default(),
        finalizers: metadata.finalizers.unwrap_or_default(),
        confirmed: metadata
            .annotations
            .and_then(|mut all| all.remove(CONFIRM_DELETE)),
        mode,
        generation: metadata.generation.unwrap_or(1),
        created: metadata.creation_timestamp.map(|time| time.0.as_second()),
        deleting: metadata.deletion_timestamp.is_some(),
        verdict,
        status: Arc::new(status),
        decided: None,
        written: Written::default(),
        shown,
    }
}

/// Reads an agent's pod.
#[must_use]
pub fn read_pod(pod: Pod) -> SeenPod {
    let Pod {
        metadata,
        spec,
        status,
    } = pod;
    let spec = spec.unwrap_or_default();
    let ports = spec
        .containers
        .into_iter()
        .flat_map(|container| container.ports.unwrap_or_default());
    let port = ports
        .filter(|port| port.name.as_deref() == Some(STATUS_PORT))
        .map(|port| port.container_port)
        .next();
    let address = status.and_then(|status| status.pod_ip);
    let url = address
        .zip(port)
        .map(|(address, port)| match address.contains(':') {
            true => format!("https://[{address}]:{port}"),
            false => format!("https://{address}:{port}"),
        });
    SeenPod {
        poke: metadata
            .annotations
            .and_then(|mut annotations| annotations.remove(POKE)),
        node: spec.node_name.or(metadata.name).unwrap_or_default(),
        url,
    }
}

/// Reads a grant; none if it cannot be.
#[must_use]
pub fn read_grant(mut object: DynamicObject) -> Option<Grant> {
    let spec = object.data.get_mut("spec").map(Value::take)?;
    match serde_json::from_value::<AccountGrantSpec>(spec) {
        Ok(spec) => Some(Grant::new(&spec)),
        Err(error) => {
            let name = object.metadata.name.unwrap_or_default();
            tracing::warn!(
                grant = name,
                "an AccountGrant that cannot be read grants nothing: {error}"
            );
            None
        }
    }
}

/// Namespace and name.
#[must_use]
pub fn key_of(metadata: &kube::api::ObjectMeta) -> Key {
    (
        metadata.namespace.clone().unwrap_or_default(),
        metadata.name.clone().unwrap_or_default(),
    )
}

#[cfg(test)]
#[path = "seen_tests.rs"]
mod tests;
