//! Verification: which rows an agent looks at for the others, when, and which way takes fewer requests.
//!
//! Every agent works off the rows whose names hash to its replica, and reads past the others'. What it passed is
//! remembered in stretches of ROWIDs with the time of passing; a slack later it looks whether the others did their
//! part, and finishes what is left. This is what heals a node that is down.

use std::time::Duration;

use crate::remote::ListedObject;
use crate::row::{Row, RowKind};
use crate::timestamp::Timestamp;

/// A stretch grows for this part of the slack before the next one begins: its first row is verified so much late.
const GRAIN: u32 = 16;

/// Keys of one listing request.
const PAGE: u64 = 1000;

/// Rows that were passed together, and are to be verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// Tombstones, or live rows: each kind is passed by a watermark of its own.
    pub tombstones: bool,
    /// The ROWID before the first.
    pub after: i64,
    /// The last ROWID.
    pub to: i64,
    /// When the first of them was passed.
    pub since: Timestamp,
    /// When the last of them was passed.
    pub passed: Timestamp,
    /// The agent's own rows are verified, too: another assignment was in force when they were passed.
    pub own: bool,
    /// They are verified in name order, beside a listing, and are done up to this name. `None` = in ROWID order.
    pub after_name: Option<String>,
    /// Tombstones: so many were passed that their agent may keep some of them waiting for a person. Here they wait, too.
    pub many: bool,
}

impl Stretch {
    /// When it may be verified.
    #[must_use]
    pub fn due(&self, slack: Duration) -> Timestamp {
        self.passed.plus(slack)
    }

    fn continues(&self, before: &Self) -> bool {
        before.to == self.after
            && before.tombstones == self.tombstones
            && before.own == self.own
            && before.many == self.many
            && before.after_name.is_none()
            && self.after_name.is_none()
    }
}

/// Notes that the rows from the end of the last stretch of this kind (`after`) up to `to` were passed now.
pub fn pass(open: &mut Vec<Stretch>, tombstones: bool, after: i64, to: i64, now: Timestamp, slack: Duration) {
    if to <= after {
        return;
    }
    let next = Stretch {
        tombstones,
        after,
        to,
        since: now,
        passed: now,
        own: false,
        after_name: None,
        many: false,
    };
    let continues = |last: &Stretch| {
        let many = last.many;
        Stretch { many, ..next.clone() }.continues(last)
    };
    match open.iter_mut().find(|last| continues(last)) {
        Some(last) if now.duration_since(last.since) < slack / GRAIN => {
            last.to = to;
            last.passed = last.passed.max(now);
        }
        _ => open.push(next),
    }
}

/// Makes one of stretches that follow each other and are due. So few are kept: those that are not due are
/// sixteen of a kind, and those that are become one.
pub fn merge_due(open: &mut Vec<Stretch>, now: Timestamp, slack: Duration) {
    open.sort_by_key(|stretch| (stretch.tombstones, stretch.after));
    let mut merged: Vec<Stretch> = Vec::with_capacity(open.len());
    for stretch in open.drain(..) {
        match merged.last_mut() {
            Some(last) if stretch.continues(last) && last.due(slack) <= now && stretch.due(slack) <= now => {
                last.to = stretch.to;
                last.passed = last.passed.max(stretch.passed);
            }
            _ => merged.push(stretch),
        }
    }
    *open = merged;
}

/// The stretch to work on now. `turn` counts: so a long one does not keep the others waiting.
#[must_use]
pub fn next(open: &[Stretch], turn: u64, now: Timestamp, slack: Duration) -> Option<&Stretch> {
    let due: Vec<_> = open.iter().filter(|stretch| stretch.due(slack) <= now).collect();
    let turn = usize::try_from(turn).unwrap_or(0);
    due.get(turn.checked_rem(due.len())?).copied()
}

/// Whether a listing may settle a row of a stretch: it can tell of a plain object alone, and only if the copy was
/// made later than the row's newest change by more than the slack.
#[must_use]
pub fn may_be_settled(row: &Row, passed: Timestamp, slack: Duration) -> bool {
    is_what_it_says(row) && row.etag.is_some() && passed > row.time.newest().plus(slack)
}

/// A listing settles a row only if ETag and size match, and it was written later than the row's newest change by
/// more than clocks may be apart (`slack`).
#[must_use]
pub fn settles(row: &Row, listed: &ListedObject, slack: Duration) -> bool {
    is_what_it_says(row)
        && row.etag.as_deref() == Some(listed.etag.as_str())
        && row.size == listed.size
        && listed.last_modified > row.time.newest().plus(slack)
}

/// Whether the row tells what the object holds, and a listing what its copy holds. A dynamic large object looks like an
/// empty one, and is not. A listing does not tell of metadata: where a POST has changed them, an agent whose Swift was
/// behind may have copied the former ones, however late that was.
fn is_what_it_says(row: &Row) -> bool {
    row.kind == RowKind::Object && row.size > 0 && row.time.newest() == row.time.data
}

/// What is known of a stretch before it is worked on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outlook {
    /// Rows that a listing may settle, among those that were read.
    pub settleable: u64,
    /// How many ROWIDs of the stretch were read.
    pub read: i64,
    /// How many it has.
    pub whole: i64,
    /// The highest ROWID of the database: it has no more names than that.
    pub names: i64,
}

/// Whether an ordered merge with a listing takes fewer requests than one HEAD for each row. Rows that a listing
/// cannot settle cost a HEAD either way.
#[must_use]
pub fn listing_is_cheaper(outlook: Outlook) -> bool {
    let count = |number: i64| u128::from(u64::try_from(number).unwrap_or(0));
    let Outlook {
        settleable,
        read,
        whole,
        names,
    } = outlook;
    let saved = u128::from(settleable) * count(whole.max(read)) / count(read).max(1);
    saved > count(names) / u128::from(PAGE) + 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SLACK: Duration = Duration::from_secs(3600);

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_unix_seconds(1_800_000_000 + seconds)
    }

    fn stretch(after: i64, to: i64, passed: u64) -> Stretch {
        Stretch {
            tombstones: false,
            after,
            to,
            since: at(passed),
            passed: at(passed),
            own: false,
            after_name: None,
            many: false,
        }
    }

    #[test]
    fn a_stretch_that_is_being_merged_with_a_listing_never_grows() {
        let mut open = vec![
            Stretch {
                after_name: Some(String::new()),
                ..stretch(0, 5, 0)
            },
            stretch(5, 9, 0),
            stretch(9, 12, 1),
        ];
        merge_due(&mut open, at(2 * 3600), SLACK);
        assert_eq!((open[0].to, open[1].after, open[1].to, open.len()), (5, 5, 12, 2));
        pass(&mut open, false, 12, 13, at(2 * 3600), SLACK);
        merge_due(&mut open, at(2 * 3600), SLACK);
        assert_eq!(open.len(), 3, "what is not due is not merged with what is");
    }

    #[test]
    fn a_listing_settles_no_empty_object_for_it_may_be_a_manifest() {
        let row = |size: i64| {
            Row::parse(crate::row::RawRow {
                name: "a".into(),
                created_at: at(0).to_string(),
                size,
                etag: "d41d8cd98f00b204e9800998ecf8427e".into(),
                ..crate::row::RawRow::default()
            })
            .unwrap()
        };
        let listed = |size| ListedObject {
            key: "a".into(),
            etag: "d41d8cd98f00b204e9800998ecf8427e".into(),
            size,
            last_modified: at(7200),
        };
        assert!(settles(&row(5), &listed(5), SLACK));
        assert!(!settles(&row(0), &listed(0), SLACK));
        assert!(may_be_settled(&row(5), at(7200), SLACK));
        assert!(!may_be_settled(&row(0), at(7200), SLACK));
    }

    #[test]
    fn a_listing_settles_no_row_that_a_post_has_changed_for_it_does_not_show_metadata() {
        let row = |created_at: String| {
            Row::parse(crate::row::RawRow {
                name: "a".into(),
                created_at,
                size: 5,
                etag: "9dd4e461268c8034f5c8564e155c67a6".into(),
                ..crate::row::RawRow::default()
            })
            .unwrap()
        };
        let listed = ListedObject {
            key: "a".into(),
            etag: "9dd4e461268c8034f5c8564e155c67a6".into(),
            size: 5,
            last_modified: at(7200),
        };
        let (put, posted) = (row(at(0).to_string()), row(format!("{}+0+1", at(0))));
        let retyped = row(format!("{}+1+0", at(0)));
        assert!(settles(&put, &listed, SLACK) && may_be_settled(&put, at(7200), SLACK));
        for row in [posted, retyped] {
            assert!(!settles(&row, &listed, SLACK) && !may_be_settled(&row, at(7200), SLACK));
        }
    }

    #[test]
    fn due_stretches_take_turns() {
        let open = [stretch(0, 5, 0), stretch(5, 9, 10), stretch(9, 10, 4000)];
        let picked = |turn| next(&open, turn, at(3700), SLACK).map(|stretch| stretch.after);
        assert_eq!([picked(0), picked(1), picked(2)], [Some(0), Some(5), Some(0)]);
        assert_eq!(next(&open, 0, at(3599), SLACK), None);
    }

    #[test]
    fn few_rows_are_looked_at_one_by_one_and_many_beside_a_listing() {
        let outlook = |settleable, read, whole, names| {
            listing_is_cheaper(Outlook {
                settleable,
                read,
                whole,
                names,
            })
        };
        assert!(outlook(2000, 3000, 3000, 3000), "a first copy");
        assert!(
            outlook(300, 500, 10_000_000, 10_000_000),
            "a large one, by its beginning"
        );
        assert!(!outlook(1, 1, 1, 1), "one row costs one request either way");
        assert!(!outlook(100, 200, 200, 1_000_000), "a few rows of many names");
        assert!(
            !outlook(0, 5000, 5000, 5000),
            "fresh rows: no listing settles them"
        );
    }

    proptest! {
        /// Rows come in at random times: none is due before its slack is over, none is due late by more than a
        /// sixteenth of it, none is forgotten, and few stretches are kept.
        #[test]
        fn no_row_is_verified_early_or_late_or_forgotten(steps in prop::collection::vec((0u64..600, 0i64..5, any::<bool>()), 1..200)) {
            let (mut open, mut now, mut noted) = (Vec::new(), 0, [0, 0]);
            let mut passed = Vec::new();
            for (wait, rows, tombstones) in steps {
                now += wait;
                let before = noted[usize::from(tombstones)];
                let to = before + rows;
                pass(&mut open, tombstones, before, to, at(now), SLACK);
                merge_due(&mut open, at(now), SLACK);
                noted[usize::from(tombstones)] = to;
                passed.extend((before + 1..=to).map(|row| (tombstones, row, now)));
                prop_assert!(open.len() <= 2 * 18, "{} stretches", open.len());
            }
            let grain = (SLACK / GRAIN).as_secs();
            let end = now + 2 * SLACK.as_secs();
            for (tombstones, row, time) in passed {
                let holds = |stretch: &&Stretch| stretch.tombstones == tombstones && stretch.after < row && row <= stretch.to;
                let found: Vec<_> = open.iter().filter(holds).collect();
                prop_assert_eq!(found.len(), 1);
                prop_assert!(found[0].passed >= at(time));
                let merged = found[0].due(SLACK) <= at(now);
                prop_assert!(merged || found[0].passed <= at(time + grain), "late");
            }
            merge_due(&mut open, at(end), SLACK);
            prop_assert!(open.len() <= 2);
        }
    }
}
