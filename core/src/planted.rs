//! Faults that a test plants, one at a time and in its own thread, to show that the simulation would find them.
//! Without the feature `planted-faults` there are none, and nothing is left of the places where they would be.

/// A fault that breaks one promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A watermark moves past rows that are neither done nor durably held.
    WatermarkBeforeDurable,
    /// The time of the newest change is taken for that of the body.
    T3ForT1,
    /// An object that is neither marked nor adopted is deleted.
    UnmarkedDeleted,
    /// A copy with the mark of another source counts as ours.
    ForeignMark,
    /// A copy that is newer than what Swift answered is overwritten.
    NewerOverwritten,
    /// A row at which the remote failed is given up.
    PauseGivesUp,
    /// A database that was restored from a backup is taken for the one that it was.
    RestoredUnnoticed,
    /// A row that has to wait is not recorded.
    HeldForgotten,
    /// Rows of other agents count as verified unseen.
    VerifiedUnseen,
    /// Swift is not asked again after a delete.
    NoSecondLook,
    /// A reconciling pass acts on what it finds when a database is first seen.
    FirstPassDeletes,
    /// A reconciling pass deletes copies that are older than the container.
    FormerContainerDeleted,
    /// A reconciling pass deletes objects without a mark.
    UnmarkedForgotten,
    /// A reconciling pass asks no person, however much it would delete.
    MassDelete,
    /// A restart refills the budget of deletes.
    BudgetRefilled,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::WatermarkBeforeDurable,
        Self::T3ForT1,
        Self::UnmarkedDeleted,
        Self::ForeignMark,
        Self::NewerOverwritten,
        Self::PauseGivesUp,
        Self::RestoredUnnoticed,
        Self::HeldForgotten,
        Self::VerifiedUnseen,
        Self::NoSecondLook,
        Self::FirstPassDeletes,
        Self::FormerContainerDeleted,
        Self::UnmarkedForgotten,
        Self::MassDelete,
        Self::BudgetRefilled,
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
