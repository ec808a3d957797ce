//! How each policy stands, and what its status says of it.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use onespace_core::admit::Admitted;
use onespace_core::finalizer::tell_of_hold;
use onespace_core::reason::PolicyFault;
use onespace_core::status::{Standing, Sum, Urgency, due, events, is_heard_soon, is_turn, status, sum};
use onespace_core::validate::Finding;
use onespace_crds::{Condition, ConditionStatus, SyncPolicyStatus};

use crate::agents::{Agents, News};
use crate::desk::{Desk, Wanted};
use crate::metrics::Metrics;
use crate::seen::{Seen, SeenPolicy};
use crate::table::Key;

/// Turns of writing numbers differ by up to so many seconds.
pub const JITTER: u64 = 10;

/// The status of a new generation waits so long for agents that are about to run it.
const SOON: Duration = Duration::from_secs(3);

/// Conditions that are counted in the metrics.
const COUNTED: [&str; 4] = ["Ready", "Stalled", "Degraded", "ObjectiveMet"];

/// The verdicts of the last round.
#[derive(Debug, Default)]
pub struct Verdicts(BTreeMap<Key, Verdict>);

/// The verdict on one generation of a policy. What is wrong with the policy alone stands with the policy.
#[derive(Debug)]
struct Verdict {
    generation: i64,
    /// When it was decided on first, or one before it of which nothing was told yet.
    since: Instant,
    /// Why it is not accepted, or how whole it is.
    admitted: Result<Lacks, Finding>,
}

/// What a mapping refers to and does not have.
#[derive(Debug, Default, PartialEq)]
struct Lacks {
    /// It does not run without.
    lacking: Vec<Finding>,
    /// It runs with what was there before.
    outdated: Vec<Finding>,
}

impl Verdicts {
    /// The verdicts on everything that was seen, after those of `self`, and of which mappings something was decided anew. They
    /// are counted in the metrics.
    #[must_use]
    pub fn then(&self, seen: &Seen, admitted: Admitted, metrics: &Metrics, now: Instant) -> (Self, News) {
        let Admitted {
            mappings,
            credentials: _,
            mut refused,
            mut lacking,
            mut outdated,
            waiting,
        } = admitted;
        let mut news = News::default();
        let decided = seen.policies.iter().filter(|(key, _)| !waiting.contains(*key));
        let verdicts = decided.map(|(key, policy)| {
            let admitted = match refused.remove(key) {
                Some(finding) => Err(finding),
                None => Ok(Lacks {
                    lacking: lacking.remove(key).unwrap_or_default(),
                    outdated: outdated.remove(key).unwrap_or_default(),
                }),
            };
            let generation = policy.generation;
            // A policy that changes again and again is told of, too.
            let told = policy.status.observed_generation;
            let before = self.0.get(key);
            let is_same =
                before.is_some_and(|before| before.admitted == admitted) && told == Some(generation);
            if !is_same {
                news.add(policy.mapping_id());
            }
            let before =
                before.filter(|before| before.generation == generation || told != Some(before.generation));
            let verdict = Verdict {
                generation,
                since: before.map_or(now, |before| before.since),
                admitted,
            };
            (key.clone(), verdict)
        });
        let verdicts = Self(verdicts.collect());
        let mut reasons: BTreeMap<&str, i64> =
            PolicyFault::ALL.iter().map(|fault| (fault.as_str(), 0)).collect();
        reasons.insert("Accepted", i64::try_from(mappings.len()).unwrap_or(i64::MAX));
        for (key, policy) in seen.policies.iter() {
            if let Some(Standing::Refused([finding, ..])) = verdicts.standing(key, policy) {
                *reasons.entry(finding.reason.as_str()).or_default() += 1;
            }
        }
        for (reason, count) in reasons {
            metrics.policies.with_label_values(&[reason]).set(count);
        }
        (verdicts, news)
    }

    /// How a policy stands; none while its newest generation was not decided on.
    fn standing<'a>(&'a self, key: &Key, policy: &'a SeenPolicy) -> Option<Standing<'a>> {
        let verdict = self.0.get(key)?;
        if verdict.generation != policy.generation || policy.is_leaving() {
            return None;
        }
        Some(match (&policy.verdict, &verdict.admitted) {
            (Err(findings), _) => Standing::Refused(findings),
            (Ok(_), Err(finding)) => Standing::Refused(std::slice::from_ref(finding)),
            (Ok(_), Ok(Lacks { lacking, outdated })) => Standing::Accepted { lacking, outdated },
        })
    }

    /// Lays down every status that says something new, of those that news concern. Until agents were `heard` that is what the
    /// operator itself has decided: without their words every policy would seem abandoned whenever a leader starts. Returns of which
    /// mappings agents are about to say something: that is waited for a moment.
    #[must_use]
    pub fn report(
        &self,
        seen: &mut Seen,
        agents: &Agents,
        news: &News,
        heard: bool,
        desk: &Desk,
        now: i64,
    ) -> News {
        let mut awaited = News::default();
        let answer = agents.views().any(|view| view.reachable);
        for (key, policy) in seen.policies.iter_mut() {
            let mapping = policy.verdict.as_ref().ok().map(|valid| &*valid.mapping);
            // Sums of thousands cost.
            if !news.concern(policy.mapping_id()) {
                continue;
            }
            let Some(standing) = self.standing(key, policy) else {
                continue;
            };
            let sum = match (mapping, standing) {
                (Some(mapping), Standing::Accepted { .. }) => {
                    sum(&mapping.id.0, policy.generation, agents.views())
                }
                _ => Sum::default(),
            };
            let mut wanted = status(policy.generation, mapping, standing, &sum, &policy.status, now);
            if policy.deleting {
                tell_of_hold(&mut wanted, &policy.status, &policy.uid, now);
            }
            if !heard && same_verdict(&policy.status, &wanted) {
                continue;
            }
            let age = policy
                .decided
                .map_or(u64::MAX / 2, |decided| decided.elapsed().as_secs());
            let jitter = jitter(key);
            // No sooner than at its turn: by then every echo of what was written is here, and two operators that undo each
            // other's work do so once a minute.
            let overwritten = || (policy.is_overwritten() && is_turn(age, jitter)).then_some(Urgency::News);
            if let Some(urgency) = due(&policy.status, &wanted, age, jitter).or_else(overwritten) {
                let is_new = urgency == Urgency::Generation && !policy.deleting;
                if is_new && is_heard_soon(standing, &sum, answer) && self.is_young(key) {
                    awaited.add(policy.mapping_id());
                    continue;
                }
                let mut events = events(&policy.status, &wanted);
                if !heard && is_accepted(&policy.status) {
                    // Whether what agents had said is over, nobody knows yet.
                    events.retain(|event| event.warning);
                }
                let wanted = Arc::new(wanted);
                policy.status = wanted.clone();
                policy.decided = Some(Instant::now());
                let wanted = Wanted {
                    uid: policy.uid.clone(),
                    urgency,
                    status: wanted,
                    events,
                    written: policy.written.clone(),
                };
                desk.put(key.clone(), wanted);
            }
        }
        awaited
    }

    /// Whether a policy was changed just now.
    fn is_young(&self, key: &Key) -> bool {
        self.0
            .get(key)
            .is_some_and(|verdict| verdict.since.elapsed() < SOON)
    }
}

fn accepted(status: &SyncPolicyStatus) -> Option<&Condition> {
    let mut conditions = status.conditions.iter();
    conditions.find(|condition| condition.kind == "Accepted")
}

fn is_accepted(status: &SyncPolicyStatus) -> bool {
    accepted(status).is_some_and(|condition| condition.status == ConditionStatus::True)
}

/// Counts policies by what their statuses say, as they are or are about to be.
pub fn count_conditions<'a>(statuses: impl Iterator<Item = &'a SyncPolicyStatus>, metrics: &Metrics) {
    let mut counts: BTreeMap<(&str, &str), i64> = BTreeMap::new();
    for kind in COUNTED {
        counts.extend(["True", "False", "Unknown"].map(|status| ((kind, status), 0)));
    }
    for condition in statuses.flat_map(|status| &status.conditions) {
        let status = match condition.status {
            ConditionStatus::True => "True",
            ConditionStatus::False => "False",
            ConditionStatus::Unknown => "Unknown",
        };
        if let Some(count) = counts.get_mut(&(condition.kind.as_str(), status)) {
            *count += 1;
        }
    }
    for ((kind, status), count) in counts {
        metrics.conditions.with_label_values(&[kind, status]).set(count);
    }
}

/// Whether a status says of generation and acceptance what another says.
fn same_verdict(one: &SyncPolicyStatus, other: &SyncPolicyStatus) -> bool {
    let of = |status: &SyncPolicyStatus| {
        let accepted = accepted(status).map(|condition| (condition.status, condition.message.clone()));
        (status.observed_generation, accepted)
    };
    of(one) == of(other)
}

/// Spreads the turns of policies over some seconds.
fn jitter(key: &Key) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish() % JITTER
}

#[cfg(test)]
mod tests {
    use onespace_crds::Condition;

    use super::*;

    #[test]
    fn policies_are_counted_by_what_their_conditions_say() {
        let status = |conditions: &[(&str, ConditionStatus)]| {
            let condition = |(kind, status): &(&str, ConditionStatus)| Condition {
                kind: (*kind).to_owned(),
                status: *status,
                observed_generation: None,
                last_transition_time: k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
                    jiff::Timestamp::now(),
                ),
                reason: "Any".to_owned(),
                message: String::new(),
            };
            SyncPolicyStatus {
                conditions: conditions.iter().map(condition).collect(),
                ..SyncPolicyStatus::default()
            }
        };
        use ConditionStatus::{False, True};
        let metrics = Metrics::new().unwrap();
        let counted = |kind, status| metrics.conditions.with_label_values(&[kind, status]).get();
        let all = [
            status(&[("Ready", False), ("Stalled", True), ("Odd", True)]),
            status(&[("Ready", True), ("Stalled", True)]),
        ];
        count_conditions(all.iter(), &metrics);
        assert_eq!((counted("Stalled", "True"), counted("Ready", "False")), (2, 1));
        count_conditions(all[1..].iter(), &metrics);
        assert_eq!((counted("Stalled", "True"), counted("Ready", "False")), (1, 0));
        let text = String::from_utf8(metrics.render().unwrap()).unwrap();
        assert!(!text.contains("Odd"), "{text}");
    }
}
