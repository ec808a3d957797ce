//! When a policy's deletion is held: objects that were released exist only remotely, and without the policy's mapping
//! nothing would show them any more.

use onespace_crds::{Condition, ConditionStatus, Mode, SyncPolicyStatus};

use crate::reason::ConditionReason;
use crate::status::{bound, time};

/// The finalizer of a policy whose deletion would hide objects.
pub const FINALIZER: &str = "onespace.dev/archived-data";

/// The annotation that lets the policy go all the same; its value is the policy's uid.
pub const CONFIRM_DELETE: &str = "onespace.dev/confirm-delete";

/// What is to be done about the finalizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinalizerStep {
    /// Nothing.
    Nothing,
    /// It is put on.
    Add,
    /// The policy stays, its mapping keeps serving, and its author is told.
    Hold,
    /// It is taken off.
    Remove,
}

/// Decides. `released`: rows were released under this policy. `confirmed` is the annotation's value: only the uid of
/// this very policy counts, so that a value kept in Git does not let its successor go.
#[must_use]
pub fn finalizer(
    mode: Mode,
    released: bool,
    is_on: bool,
    deleting: bool,
    confirmed: Option<&str>,
    uid: &str,
) -> FinalizerStep {
    let needed = mode == Mode::Archive && released;
    match (deleting, is_on) {
        (false, false) if needed => FinalizerStep::Add,
        (false, true) if mode != Mode::Archive => FinalizerStep::Remove,
        (false, _) | (true, false) => FinalizerStep::Nothing,
        (true, true) if mode != Mode::Archive || (!uid.is_empty() && confirmed == Some(uid)) => {
            FinalizerStep::Remove
        }
        // Whatever agents report just now: it was put on because something was released.
        (true, true) => FinalizerStep::Hold,
    }
}

/// Says in a policy's status why it does not go. `before` is its status so far; `now` is in seconds since 1970.
pub fn tell_of_hold(status: &mut SyncPolicyStatus, before: &SyncPolicyStatus, uid: &str, now: i64) {
    let is_degraded = |condition: &&Condition| condition.kind == "Degraded";
    let was = before.conditions.iter().find(is_degraded);
    let since = was
        .filter(|was| was.status == ConditionStatus::True)
        .map(|was| was.last_transition_time.clone())
        .or_else(|| time(now));
    let degraded = status
        .conditions
        .iter_mut()
        .find(|condition| condition.kind == "Degraded");
    if let (Some(condition), Some(since)) = (degraded, since) {
        condition.status = ConditionStatus::True;
        condition.reason = ConditionReason::ArchivedDataWouldHide.to_string();
        condition.message = format!(
            "objects exist only at the target, and without this policy nothing shows them: if that is meant, annotate it with {CONFIRM_DELETE}={uid}"
        );
        condition.last_transition_time = since;
        bound(status);
    }
}

#[cfg(test)]
mod tests {
    use super::FinalizerStep::{Add, Hold, Nothing, Remove};
    use super::*;

    #[test]
    fn a_policy_that_released_objects_goes_only_when_its_own_uid_confirms_it() {
        let archive = |released, is_on, deleting, confirmed| {
            finalizer(Mode::Archive, released, is_on, deleting, confirmed, "uid-1")
        };
        assert_eq!(archive(false, false, false, None), Nothing);
        assert_eq!(archive(true, false, false, None), Add);
        assert_eq!(archive(true, true, false, None), Nothing);
        assert_eq!(archive(true, true, true, None), Hold);
        assert_eq!(archive(false, true, true, None), Hold, "no agent answers");
        assert_eq!(archive(true, true, true, Some("uid-0")), Hold);
        assert_eq!(archive(true, true, true, Some("")), Hold);
        assert_eq!(archive(true, true, true, Some("uid-1")), Remove);
    }

    #[test]
    fn a_policy_that_is_held_says_why_and_since_when() {
        let condition = |status, seconds| Condition {
            kind: "Degraded".to_owned(),
            status,
            observed_generation: Some(1),
            last_transition_time: time(seconds).unwrap(),
            reason: "Healthy".to_owned(),
            message: String::new(),
        };
        let status = |status, seconds| SyncPolicyStatus {
            conditions: vec![condition(status, seconds)],
            ..SyncPolicyStatus::default()
        };
        let before = status(ConditionStatus::False, 5);
        let mut held = before.clone();
        tell_of_hold(&mut held, &before, "uid-1", 10);
        let told = &held.conditions[0];
        assert_eq!(told.status, ConditionStatus::True);
        assert!(told.message.contains("confirm-delete=uid-1"), "{}", told.message);
        assert_eq!(told.last_transition_time, time(10).unwrap());
        let mut later = status(ConditionStatus::False, 20);
        tell_of_hold(&mut later, &held, "uid-1", 20);
        assert_eq!(later, held, "nothing new");
    }

    #[test]
    fn a_policy_that_releases_nothing_is_never_held() {
        for mode in [Mode::Sync, Mode::Migrate] {
            assert_eq!(finalizer(mode, true, false, false, None, "u"), Nothing);
            assert_eq!(finalizer(mode, true, true, true, None, "u"), Remove);
        }
    }
}
