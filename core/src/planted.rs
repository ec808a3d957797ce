//! Faults that a test plants, one at a time and in its own thread, to show that the simulation would find them.
//! Without the feature `planted-faults` there are none, and nothing is left of the places where they would be.

/// A fault that breaks one promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A watermark moves past rows that are neither done nor durably held.
    WatermarkBeforeDurable,
    /// The time of the newest change is taken for that of the body.
    T3ForT1,
    /// A body that is older than its row is copied.
    StaleBody,
    /// A 404 without proof counts as gone.
    BareAbsence,
    /// Work on one name does not wait for earlier work on it.
    NoOrderPerName,
    /// Tombstones of the reconciler and of releases delete at the remote.
    OffsetTombstones,
    /// A tombstone acts although the name is alive under another storage policy.
    OtherPolicyForgotten,
    /// An object that is neither marked nor adopted is deleted.
    UnmarkedDeleted,
    /// A copy with the mark of another source counts as ours.
    ForeignMark,
    /// A copy that is newer than what Swift answered is overwritten.
    NewerOverwritten,
    /// A row that finds no place in the full set is dropped.
    DroppedWhenFull,
    /// A row at which the remote failed is given up.
    PauseGivesUp,
    /// Progress belongs to a path, not to a database.
    ProgressByPath,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::WatermarkBeforeDurable,
        Self::T3ForT1,
        Self::StaleBody,
        Self::BareAbsence,
        Self::NoOrderPerName,
        Self::OffsetTombstones,
        Self::OtherPolicyForgotten,
        Self::UnmarkedDeleted,
        Self::ForeignMark,
        Self::NewerOverwritten,
        Self::DroppedWhenFull,
        Self::PauseGivesUp,
        Self::ProgressByPath,
    ];
}

/// Whether this fault is planted: never.
#[cfg(not(feature = "planted-faults"))]
#[must_use]
pub const fn planted(_fault: Fault) -> bool {
    false
}

#[cfg(feature = "planted-faults")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Fault>> = const { std::cell::Cell::new(None) };
}

/// Whether this fault is planted in this thread.
#[cfg(feature = "planted-faults")]
#[must_use]
pub fn planted(fault: Fault) -> bool {
    PLANTED.get() == Some(fault)
}

/// Plants a fault in this thread, or removes it.
#[cfg(feature = "planted-faults")]
pub fn plant(fault: Option<Fault>) {
    PLANTED.set(fault);
}
