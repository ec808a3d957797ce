//! Making the agents' kubelets look: a kubelet alone refreshes a mounted ConfigMap within 90 s, but at once when an
//! annotation of the pod changes. The annotation is on the pods alone, never in their template: it restarts nothing.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;

use crate::api::{FIELD_MANAGER, within};
use crate::seen::SeenPod;
use crate::table::{Key, Table};

/// The annotation: the revision of the index.
pub const POKE: &str = "onespace.dev/revision";

/// Pods that are annotated at the same time.
const AT_ONCE: usize = 8;

/// At most one poke per pod in this time.
const EVERY: Duration = Duration::from_millis(500);

/// Which pods were poked for what, and when.
#[derive(Debug, Default)]
pub struct Pokes {
    last: BTreeMap<Key, (String, Instant)>,
}

impl Pokes {
    /// The pods that have not been told of this revision.
    fn due(&mut self, pods: &Table<SeenPod>, revision: &str, now: Instant) -> Vec<Key> {
        self.last.retain(|key, _| pods.get(key).is_some());
        let untold = pods.iter().filter(|(key, pod)| {
            let told = pod.poke.as_deref() == Some(revision);
            let just = self.last.get(*key).is_some_and(|(last, at)| {
                last == revision && now.duration_since(*at) < EVERY * 10 || now.duration_since(*at) < EVERY
            });
            !told && !just
        });
        untold.map(|(key, _)| key.clone()).collect()
    }

    /// Tells every pod that was not told. Returns whether all were reached.
    pub async fn poke(&mut self, client: &Client, pods: &Table<SeenPod>, revision: &str) -> bool {
        let now = Instant::now();
        let due = self.due(pods, revision, now);
        for key in &due {
            self.last.insert(key.clone(), (revision.to_owned(), now));
        }
        let told: Vec<_> = due
            .into_iter()
            .map(|key| annotate(client.clone(), key, revision.to_owned()))
            .collect();
        let results: Vec<bool> = futures::stream::iter(told)
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        results.into_iter().all(|reached| reached)
    }
}

async fn annotate(client: Client, (namespace, name): Key, revision: String) -> bool {
    let api: Api<Pod> = Api::namespaced(client, &namespace);
    let patch = json!({"metadata": {"annotations": {POKE: revision}}});
    let manager = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    match within(api.patch_metadata(&name, &manager, &Patch::Merge(&patch))).await {
        Ok(_) => true,
        // Gone meanwhile.
        Err(error) if error.code() == Some(404) => true,
        Err(error) => {
            tracing::warn!(pod = name, "cannot be told of a new revision: {error}");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{Change, if_different};

    #[test]
    fn a_pod_is_told_of_each_revision_once_and_at_most_twice_a_second() {
        let key = ("swift".to_owned(), "agent-1".to_owned());
        let mut pods = Table::new(&[None]);
        pods.take(
            &None,
            Change::Put(key.clone(), SeenPod { poke: None }),
            if_different,
        );
        let mut pokes = Pokes::default();
        let start = Instant::now();
        let told = std::slice::from_ref(&key);
        assert_eq!(pokes.due(&pods, "r1", start), told);
        pokes.last.insert(key.clone(), ("r1".to_owned(), start));
        let later = |millis| start + Duration::from_millis(millis);
        assert!(
            pokes.due(&pods, "r1", later(600)).is_empty(),
            "its watch is behind"
        );
        assert!(pokes.due(&pods, "r2", later(400)).is_empty());
        assert_eq!(pokes.due(&pods, "r2", later(600)), told);
        pods.take(
            &None,
            Change::Put(
                key.clone(),
                SeenPod {
                    poke: Some("r2".to_owned()),
                },
            ),
            if_different,
        );
        assert!(pokes.due(&pods, "r2", later(60_000)).is_empty());
    }
}
