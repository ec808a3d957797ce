//! When a policy's deletion is held: objects that were released exist only remotely, and without the policy's mapping
//! nothing would show them any more.

use onespace_crds::Mode;

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
    fn a_policy_that_releases_nothing_is_never_held() {
        for mode in [Mode::Sync, Mode::Migrate] {
            assert_eq!(finalizer(mode, true, false, false, None, "u"), Nothing);
            assert_eq!(finalizer(mode, true, true, true, None, "u"), Remove);
        }
    }
}
