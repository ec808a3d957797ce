//! The Lease as one candidate sees it, and what that lets it do. Nothing here asks anybody: [`crate::leader`] does.
//!
//! A Lease has run out when the candidate itself has seen no change of it for as long as it lasts, by its own clock, as
//! client-go has it: the times written in it are another machine's, whose clock may be wrong.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use serde_json::{Value, json};
use tokio::time::Instant;

/// The longest wait for anything but the end of a Lease: one that is given back is found soon, however long it lasts.
const LONGEST: Duration = Duration::from_secs(10);

/// What follows from how long the Lease lasts.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// So long after the last change that it saw another candidate may take it.
    pub duration: Duration,
    /// So long after it asked for a renewal that was answered its holder may write: what it sent until then has the
    /// rest of the duration to arrive.
    pub hold: Duration,
    /// How often the holder renews it, and the others look.
    pub every: Duration,
    /// An answer must be there by then: two tries fit between a renewal that is due and the end of `hold`.
    pub patience: Duration,
    /// The wait after a renewal that failed.
    pub pause: Duration,
}

impl Terms {
    /// Of a Lease of so many seconds.
    #[must_use]
    pub fn new(seconds: u64) -> Self {
        let duration = Duration::from_secs(seconds);
        Self {
            duration,
            hold: duration * 2 / 3,
            every: (duration / 5).min(LONGEST),
            patience: (duration / 5).min(LONGEST),
            pause: (duration / 15).min(LONGEST),
        }
    }
}

/// What a candidate knows of the Lease.
#[derive(Debug)]
pub struct Candidate {
    identity: String,
    terms: Terms,
    seen: Option<Sight>,
    /// Its last claim was answered, and nothing else was seen since.
    certain: bool,
}

#[derive(Debug)]
struct Sight {
    spec: LeaseSpec,
    version: String,
    /// When it was first seen like this.
    since: Instant,
}

impl Candidate {
    /// Has seen nothing yet.
    #[must_use]
    pub fn new(identity: &str, terms: Terms) -> Self {
        Self {
            identity: identity.to_owned(),
            terms,
            seen: None,
            certain: false,
        }
    }

    /// Takes note of the Lease as it is.
    pub fn observe(&mut self, lease: Lease, now: Instant) {
        let spec = lease.spec.unwrap_or_default();
        let before = self.seen.as_ref().filter(|seen| seen.spec == spec);
        self.seen = Some(Sight {
            since: before.map_or(now, |seen| seen.since),
            version: lease.metadata.resource_version.unwrap_or_default(),
            spec,
        });
        self.certain = false;
    }

    /// From now on it knows of none.
    pub fn forget(&mut self) {
        self.seen = None;
        self.certain = false;
    }

    /// When another's Lease runs out: none if nobody else has it.
    #[must_use]
    pub fn runs_out(&self) -> Option<Instant> {
        let other = self.seen.as_ref();
        let other = other.filter(|seen| seen.holder().is_some_and(|holder| holder != self.identity))?;
        let seconds = other.spec.lease_duration_seconds;
        let seconds = seconds.and_then(|seconds| u64::try_from(seconds).ok());
        Some(other.since + seconds.map_or(self.terms.duration, Duration::from_secs))
    }

    /// Whether it may claim the Lease: it is its own, nobody's, or has run out.
    #[must_use]
    pub fn may_claim(&self, now: Instant) -> bool {
        self.runs_out().is_none_or(|end| now >= end)
    }

    /// Whether the Lease is its own without looking: its next claim names the version that its last one made.
    #[must_use]
    pub fn is_certain(&self) -> bool {
        self.certain
    }

    /// What is to be written in order to have it, in the place of what was seen and of nothing else. Whether that is so
    /// is uncertain until [`Candidate::claimed`].
    pub fn claim(&mut self, now: Timestamp) -> Value {
        self.certain = false;
        let mut claim = json!({"spec": {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": self.terms.duration.as_secs(),
            "renewTime": MicroTime(now),
        }});
        let seen = self.seen.as_ref();
        if seen.and_then(Sight::holder) != Some(&self.identity) {
            let before = seen.and_then(|seen| seen.spec.lease_transitions);
            claim["spec"]["acquireTime"] = json!(MicroTime(now));
            claim["spec"]["leaseTransitions"] = json!(before.map_or(0, |before| before.saturating_add(1)));
        }
        if let Some(seen) = seen {
            claim["metadata"] = json!({"resourceVersion": seen.version});
        }
        claim
    }

    /// The claim was taken.
    pub fn claimed(&mut self, lease: Lease, now: Instant) {
        self.observe(lease, now);
        self.certain = true;
    }

    /// What is to be written in order to give it back, unless it was renewed or taken since; none if it is not its own.
    #[must_use]
    pub fn give_back(&self) -> Option<Value> {
        let seen = self.seen.as_ref();
        let seen = seen.filter(|seen| seen.holder() == Some(&self.identity))?;
        Some(json!({
            "metadata": {"resourceVersion": seen.version},
            "spec": {"holderIdentity": null, "leaseDurationSeconds": null, "acquireTime": null, "renewTime": null},
        }))
    }
}

impl Sight {
    fn holder(&self) -> Option<&str> {
        let holder = self.spec.holder_identity.as_deref();
        holder.filter(|holder| !holder.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(holder: &str, version: u32, renewed: &str) -> Lease {
        serde_json::from_value(json!({"metadata": {"resourceVersion": version.to_string()},
            "spec": {"holderIdentity": holder, "leaseDurationSeconds": 15, "renewTime": renewed, "leaseTransitions": 4}}))
        .unwrap()
    }

    const LONG_AGO: &str = "2001-01-01T00:00:00.000000Z";
    const FAR_AHEAD: &str = "2201-01-01T00:00:00.000000Z";

    #[test]
    fn a_lease_runs_out_by_the_candidates_own_clock_whatever_time_is_written_in_it() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        for written in [LONG_AGO, FAR_AHEAD] {
            let mut candidate = Candidate::new("b", Terms::new(600));
            candidate.observe(lease("a", 1, written), start);
            assert!(!candidate.may_claim(after(14)), "{written}");
            // Looking again changes nothing, nor does a label that somebody puts on it.
            candidate.observe(lease("a", 2, written), after(14));
            assert!(candidate.may_claim(after(15)), "{written}");
        }
        let mut candidate = Candidate::new("b", Terms::new(600));
        candidate.observe(lease("a", 1, LONG_AGO), start);
        candidate.observe(lease("a", 2, FAR_AHEAD), after(14));
        assert!(!candidate.may_claim(after(28)), "it was renewed");
        assert!(candidate.may_claim(after(29)));
    }

    #[test]
    fn a_claim_replaces_what_was_seen_and_nothing_else() {
        let (start, now) = (Instant::now(), Timestamp::UNIX_EPOCH);
        let mut candidate = Candidate::new("b", Terms::new(15));
        assert!(candidate.may_claim(start), "there is none");
        assert_eq!(candidate.claim(now).pointer("/metadata"), None);
        candidate.observe(lease("a", 7, LONG_AGO), start);
        let claim = candidate.claim(now);
        assert_eq!(claim["metadata"]["resourceVersion"], "7");
        assert_eq!(claim["spec"]["leaseTransitions"], 5);
        candidate.claimed(lease("b", 8, LONG_AGO), start);
        assert!(candidate.is_certain());
        let renewal = candidate.claim(now);
        assert_eq!(renewal["metadata"]["resourceVersion"], "8");
        assert_eq!(renewal["spec"].get("acquireTime"), None, "it goes on");
        assert!(!candidate.is_certain(), "the answer may never come");
        assert_eq!(candidate.give_back().unwrap()["metadata"]["resourceVersion"], "8");
        candidate.observe(lease("a", 9, LONG_AGO), start);
        assert_eq!(candidate.give_back(), None, "it is another's");
    }

    #[test]
    fn a_lease_that_was_given_back_is_free_at_once() {
        let start = Instant::now();
        let mut candidate = Candidate::new("b", Terms::new(15));
        candidate.observe(lease("a", 1, FAR_AHEAD), start);
        assert!(!candidate.may_claim(start));
        candidate.observe(lease("", 2, FAR_AHEAD), start);
        assert!(candidate.may_claim(start));
        candidate.observe(Lease::default(), start);
        assert!(candidate.may_claim(start));
    }

    #[test]
    fn a_holder_stops_before_another_may_begin_and_has_two_tries_until_then() {
        for seconds in [2, 15, 600] {
            let Terms {
                duration,
                hold,
                every,
                patience,
                pause,
            } = Terms::new(seconds);
            assert!(
                hold + duration / 4 < duration,
                "what is under way has time to arrive"
            );
            assert!(every + patience + pause + patience <= hold);
        }
    }
}
