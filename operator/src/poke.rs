//! Making the agents' kubelets look: a kubelet alone refreshes a mounted ConfigMap within 90 s, but at once when an
//! annotation of the pod changes. The annotation is on the pods alone, never in their template: it restarts nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::agents::Taken;
use crate::api::{FIELD_MANAGER, within};
use crate::seen::SeenPod;
use crate::table::{Key, Table};

/// The annotation: the revision of the index, and from the second try on `.` and the try's number.
pub const POKE: &str = "onespace.dev/revision";

/// Pods that are annotated at the same time.
const AT_ONCE: usize = 8;

/// At most one poke per pod in this time.
const EVERY: Duration = Duration::from_millis(500);

/// By then a poke shows in the watch of pods.
const ECHO: Duration = Duration::from_secs(5);

/// The wait before a pod is poked again whose agent does not run the revision, at first and at most. The first is short: a
/// kubelet may see the poke before it sees the files, and then looks at those from before. Until then an agent has been asked
/// several times.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(800), Duration::from_secs(300));

/// A pod whose agent has seen files of two revisions is told again at once, but only so many times in a row.
const MIXED: u32 = 4;

/// Which pods were poked for what, and when.
#[derive(Debug, Default)]
pub struct Pokes {
    last: BTreeMap<Key, Poke>,
    under_way: Option<AbortOnDropHandle<()>>,
}

#[derive(Debug)]
struct Poke {
    revision: String,
    tries: u32,
    at: Instant,
}

impl Pokes {
    /// Tells every pod of this revision that was not told of it, and again those whose agents do not run it though they
    /// can be asked. `taken` says who does.
    pub fn poke(
        &mut self,
        client: &Client,
        pods: &Table<SeenPod>,
        revision: &str,
        taken: impl Fn(&SeenPod) -> Taken,
    ) {
        if self.under_way.as_ref().is_some_and(|pokes| !pokes.is_finished()) {
            return;
        }
        let due = self.due(pods, revision, taken, Instant::now());
        if due.is_empty() {
            return;
        }
        let client = client.clone();
        let pokes = async move {
            let pokes = due.into_iter().map(|(key, value)| annotate(&client, key, value));
            let pokes: Vec<_> = pokes.collect();
            futures::stream::iter(pokes)
                .buffer_unordered(AT_ONCE)
                .collect::<()>()
                .await;
        };
        self.under_way = Some(AbortOnDropHandle::new(tokio::spawn(pokes)));
    }

    /// The pods that are to be told now, and of what.
    fn due(
        &mut self,
        pods: &Table<SeenPod>,
        revision: &str,
        taken: impl Fn(&SeenPod) -> Taken,
        now: Instant,
    ) -> Vec<(Key, String)> {
        self.last.retain(|key, _| pods.get(key).is_some());
        let mut due = Vec::new();
        for (key, pod) in pods.iter() {
            let told = pod.poke.as_deref().is_some_and(|poke| is_of(poke, revision));
            let taken = taken(pod);
            if told && (pod.url.is_none() || taken == Taken::Yes) {
                continue;
            }
            let last = self.last.get(key);
            let since = last.map(|last| now.saturating_duration_since(last.at));
            let tries = match last.filter(|last| last.revision == revision) {
                // Told by the leader before: from now on it is waited for.
                None if told => {
                    let (revision, tries) = (revision.to_owned(), 1);
                    self.last.insert(
                        key.clone(),
                        Poke {
                            revision,
                            tries,
                            at: now,
                        },
                    );
                    continue;
                }
                None if since.is_some_and(|since| since < EVERY) => continue,
                None => 0,
                Some(last) => {
                    let wait = match taken {
                        _ if !told => ECHO,
                        Taken::Failed if last.tries < MIXED => EVERY,
                        _ => backoff(last.tries),
                    };
                    if since.is_some_and(|since| since < wait) {
                        continue;
                    }
                    last.tries
                }
            };
            let value = match tries {
                0 => revision.to_owned(),
                tries => format!("{revision}.{tries}"),
            };
            let poke = Poke {
                revision: revision.to_owned(),
                tries: tries.saturating_add(1),
                at: now,
            };
            self.last.insert(key.clone(), poke);
            due.push((key.clone(), value));
        }
        due
    }
}

/// Whether a poke is of this revision, in whichever try.
fn is_of(poke: &str, revision: &str) -> bool {
    let rest = poke.strip_prefix(revision);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn backoff(tries: u32) -> Duration {
    let doubled = 1_u32.checked_shl(tries.saturating_sub(1)).unwrap_or(u32::MAX);
    BACKOFF.0.saturating_mul(doubled).min(BACKOFF.1)
}

async fn annotate(client: &Client, (namespace, name): Key, value: String) {
    let api: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let patch = json!({"metadata": {"annotations": {POKE: value}}});
    let manager = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    match within(api.patch_metadata(&name, &manager, &Patch::Merge(&patch))).await {
        Ok(_) => {}
        Err(error) if error.code() == Some(404) => tracing::debug!(pod = name, "is gone"),
        Err(error) => tracing::warn!(pod = name, "cannot be told of a new revision: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{Change, if_different};

    struct World {
        pods: Table<SeenPod>,
        pokes: Pokes,
        start: Instant,
    }

    impl World {
        fn new() -> Self {
            let mut world = Self {
                pods: Table::new(&[None]),
                pokes: Pokes::default(),
                start: Instant::now(),
            };
            world.shows(None);
            world
        }

        /// The watch shows the pod with this annotation.
        fn shows(&mut self, poke: Option<&str>) {
            let pod = SeenPod {
                poke: poke.map(str::to_owned),
                node: "n1".to_owned(),
                url: Some("https://10.0.0.1:9181".to_owned()),
            };
            let key = ("swift".to_owned(), "agent-1".to_owned());
            self.pods.take(&None, Change::Put(key, pod), if_different);
        }

        fn told(&mut self, revision: &str, runs: bool, millis: u64) -> Option<String> {
            self.told_as(revision, if runs { Taken::Yes } else { Taken::NotYet }, millis)
        }

        fn told_as(&mut self, revision: &str, taken: Taken, millis: u64) -> Option<String> {
            let now = self.start + Duration::from_millis(millis);
            let due = self.pokes.due(&self.pods, revision, |_| taken, now);
            due.into_iter().next().map(|(_, value)| value)
        }
    }

    #[test]
    fn a_pod_is_told_of_each_revision_at_once_but_at_most_twice_a_second() {
        let mut world = World::new();
        assert_eq!(world.told("r1", false, 0).as_deref(), Some("r1"));
        assert_eq!(world.told("r1", false, 600), None, "its watch is behind");
        assert_eq!(world.told("r2", false, 400), None);
        assert_eq!(world.told("r2", false, 600).as_deref(), Some("r2"));
        world.shows(Some("r2"));
        assert_eq!(world.told("r2", true, 3_600_000), None, "its agent runs it");
        assert_eq!(
            world.told("r22", true, 3_600_000).as_deref(),
            Some("r22"),
            "another one"
        );
    }

    #[test]
    fn a_pod_is_told_again_more_and_more_seldom_until_its_agent_runs_the_revision() {
        let mut world = World::new();
        assert_eq!(world.told("r1", false, 0).as_deref(), Some("r1"));
        world.shows(Some("r1"));
        assert_eq!(world.told("r1", false, 700), None);
        assert_eq!(world.told("r1", false, 800).as_deref(), Some("r1.1"));
        world.shows(Some("r1.1"));
        assert_eq!(world.told("r1", false, 2_300), None);
        assert_eq!(world.told("r1", false, 2_400).as_deref(), Some("r1.2"));
        world.shows(Some("r1.2"));
        assert_eq!(world.told("r1", true, 600_000), None);
        let tries = (0..86_400).filter(|second| {
            world
                .told("r1", false, 600_000 + second * 1_000)
                .inspect(|poke| world.shows(Some(poke)))
                .is_some()
        });
        assert!(tries.count() < 300, "once in five minutes at most, in the end");
    }

    #[test]
    fn a_pod_whose_agent_saw_files_of_two_revisions_is_told_again_soon_but_not_for_ever() {
        let mut world = World::new();
        assert_eq!(world.told("r1", false, 0).as_deref(), Some("r1"));
        world.shows(Some("r1"));
        assert_eq!(world.told_as("r1", Taken::Failed, 400), None);
        assert_eq!(world.told_as("r1", Taken::Failed, 500).as_deref(), Some("r1.1"));
        world.shows(Some("r1.1"));
        let tries = (5..600).filter(|tenth| {
            world
                .told_as("r1", Taken::Failed, 100 * tenth)
                .inspect(|poke| world.shows(Some(poke)))
                .is_some()
        });
        assert!(tries.count() < 6, "its files are broken, not being written");
    }

    #[test]
    fn a_pod_whose_annotation_was_refused_is_told_again_after_some_seconds() {
        let mut world = World::new();
        assert_eq!(world.told("r1", false, 0).as_deref(), Some("r1"));
        // Nothing shows: admission refused it, or the request got lost.
        assert_eq!(world.told("r1", false, 4_900), None);
        assert_eq!(world.told("r1", false, 5_000).as_deref(), Some("r1.1"));
        assert_eq!(world.told("r1", false, 9_900), None);
        assert_eq!(world.told("r1", false, 10_000).as_deref(), Some("r1.2"));
    }

    #[test]
    fn a_new_leader_does_not_tell_again_what_was_told() {
        let mut world = World::new();
        world.shows(Some("r1.4"));
        assert_eq!(world.told("r1", false, 0), None);
        assert_eq!(world.told("r1", false, 2_000).as_deref(), Some("r1.1"));
    }
}
