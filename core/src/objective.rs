//! Objectives: which share of the rows is to be in step within what time, how that is counted, and whether it is met.
//!
//! Counts add, over databases and over agents; only their sum says whether an objective is met.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::timestamp::Timestamp;

/// A window is counted in so many slots: by so much of it rows may leave it late.
const SLOTS: u64 = 60;

/// What share of the rows is to be in step within what time, as it stands in a mapping's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Objective {
    /// The share.
    pub ratio: Ratio,
    /// In how many seconds after it is due a row is to be in step.
    pub within: u64,
    /// Rows that were due in the last so many seconds count.
    pub over: u64,
}

impl Objective {
    /// When a row that is due then is late.
    #[must_use]
    pub fn deadline(&self, due: Timestamp) -> Timestamp {
        due.plus(Duration::from_secs(self.within))
    }

    /// How often it is worth looking at how many rows are late.
    #[must_use]
    pub fn grain(&self) -> Duration {
        Duration::from_secs((self.within / SLOTS).max(1))
    }

    /// Length of a slot, seconds.
    fn width(&self) -> u64 {
        self.over.div_ceil(SLOTS).max(1)
    }

    /// The slot of a row that was due then.
    fn slot(&self, due: Timestamp) -> u64 {
        due.unix_seconds() / self.width() * self.width()
    }

    /// The first slot of which a part lies in the window.
    fn first_slot(&self, now: Timestamp) -> u64 {
        let begin = now.unix_seconds().saturating_sub(self.over);
        begin / self.width() * self.width()
    }
}

/// A share, in millionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ratio(u32);

const WHOLE: u32 = 1_000_000;

/// Not a share.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no share: write one like 99.9% (at most 100%, with up to four decimals)")]
pub struct RatioError(String);

impl Ratio {
    /// Reads `99.9%`, with up to four decimals.
    ///
    /// # Errors
    /// [`RatioError`].
    pub fn parse(text: &str) -> Result<Self, RatioError> {
        let refused = || RatioError(text.chars().take(20).collect());
        let digits = |text: &str, most: usize| {
            (1..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
        };
        let share = text.strip_suffix('%').ok_or_else(refused)?;
        let (whole, decimals) = share.split_once('.').unwrap_or((share, "0"));
        if !digits(whole, 3) || !digits(decimals, 4) {
            return Err(refused());
        }
        let number = |text: &str| text.parse::<u32>().map_err(|_| refused());
        let share = number(whole)? * 10_000 + number(&format!("{decimals:0<4}"))?;
        match share <= WHOLE {
            true => Ok(Self(share)),
            false => Err(refused()),
        }
    }
}

impl TryFrom<String> for Ratio {
    type Error = RatioError;

    fn try_from(text: String) -> Result<Self, RatioError> {
        Self::parse(&text)
    }
}

impl From<Ratio> for String {
    fn from(ratio: Ratio) -> Self {
        let text = format!("{}.{:04}", ratio.0 / 10_000, ratio.0 % 10_000);
        format!("{}%", text.trim_end_matches('0').trim_end_matches('.'))
    }
}

/// Rows that count for an objective.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// In step in time.
    pub good: u64,
    /// In step too late, or still waiting though they should be.
    pub missed: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, Self { good, missed }: Self) {
        self.good = self.good.saturating_add(good);
        self.missed = self.missed.saturating_add(missed);
    }
}

/// Whether an objective is met by the sums of all agents. Without any rows it is.
#[must_use]
pub fn is_met(ratio: Ratio, sums: Counts) -> bool {
    let (good, missed) = (u128::from(sums.good), u128::from(sums.missed));
    good * u128::from(WHOLE) >= u128::from(ratio.0) * (good + missed)
}

/// Rows by the slot in which they were due: those of the last while, in bounded memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally(BTreeMap<u64, Counts>);

impl Tally {
    /// Counts a row that was due and is in step now. A time in the future, or after the row was done, counts as that
    /// of its being done: clocks may be apart.
    pub fn judge(&mut self, objective: &Objective, due: Timestamp, done: Timestamp) {
        let good = done <= objective.deadline(due);
        let counts = Counts {
            good: good.into(),
            missed: (!good).into(),
        };
        self.add(objective.slot(due.min(done)), counts);
    }

    /// Adds what was counted in a slot.
    pub fn add(&mut self, slot: u64, counts: Counts) {
        *self.0.entry(slot).or_default() += counts;
    }

    /// Adds another tally of the same objective.
    pub fn merge(&mut self, other: &Self) {
        for (slot, counts) in other.slots() {
            self.add(slot, counts);
        }
    }

    /// Drops what has left the window; returns the first slot that is left in it.
    pub fn forget(&mut self, objective: &Objective, now: Timestamp) -> u64 {
        let first = objective.first_slot(now);
        self.0.retain(|slot, _| *slot >= first);
        first
    }

    /// All that is in it.
    #[must_use]
    pub fn sum(&self) -> Counts {
        let mut sum = Counts::default();
        for counts in self.0.values() {
            sum += *counts;
        }
        sum
    }

    /// Its slots, by their first second.
    pub fn slots(&self) -> impl Iterator<Item = (u64, Counts)> {
        self.0.iter().map(|(slot, counts)| (*slot, *counts))
    }

    /// Whether nothing was counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The beginning of the time of which a window tells, when it is counted since then: not before the window itself.
#[must_use]
pub fn since(objective: &Objective, counted_since: Timestamp, now: Timestamp) -> Timestamp {
    counted_since.max(Timestamp::from_unix_seconds(objective.first_slot(now)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn objective(within: u64, over: u64) -> Objective {
        Objective {
            ratio: Ratio::parse("99.9%").unwrap(),
            within,
            over,
        }
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_unix_seconds(seconds)
    }

    #[test]
    fn a_ratio_is_a_percentage_with_up_to_four_decimals() {
        for (text, millionths) in [
            ("99.9%", 999_000),
            ("100%", 1_000_000),
            ("0%", 0),
            ("5%", 50_000),
            ("99.9999%", 999_999),
            ("0.0001%", 1),
        ] {
            assert_eq!(Ratio::parse(text), Ok(Ratio(millionths)), "{text}");
            assert_eq!(String::from(Ratio(millionths)), text);
        }
        for wrong in [
            "",
            "%",
            "99.9",
            "100.0001%",
            "101%",
            "1.00001%",
            ".5%",
            "5.%",
            "-1%",
            "1e1%",
            "0100%",
        ] {
            assert!(Ratio::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_objective_is_met_by_exactly_its_share_and_by_no_rows() {
        let met = |good, missed| is_met(Ratio::parse("99.9%").unwrap(), Counts { good, missed });
        assert!(met(0, 0));
        assert!(met(999, 1));
        assert!(!met(998, 1));
        assert!(!met(0, 1));
        assert!(is_met(
            Ratio::parse("100%").unwrap(),
            Counts {
                good: u64::MAX,
                missed: 0
            }
        ));
    }

    proptest! {
        #[test]
        fn every_row_of_the_window_counts_once_and_none_longer_than_a_slot_beyond_it(
            rows in prop::collection::vec((0u64..5_000, 0u64..2_000), 0..200),
            within in 1u64..1_000,
            over in 1u64..3_000,
            later in 0u64..5_000,
        ) {
            let objective = objective(within, over);
            let mut tally = Tally::default();
            let mut clock = 0;
            for (due, takes) in &rows {
                let mut turn = Tally::default();
                turn.judge(&objective, at(10_000 + due), at(10_000 + due + takes));
                tally.merge(&turn);
                clock = clock.max(10_000 + due + takes);
            }
            let now = at(clock.max(10_000) + later);
            tally.forget(&objective, now);
            let count = |since: u64, good: bool| {
                let counts = |(due, takes): &&(u64, u64)| 10_000 + due >= since && (*takes <= within) == good;
                rows.iter().filter(counts).count() as u64
            };
            let begin = now.unix_seconds().saturating_sub(over);
            let sum = tally.sum();
            for (found, good) in [(sum.good, true), (sum.missed, false)] {
                prop_assert!(found >= count(begin, good));
                prop_assert!(found <= count(begin.saturating_sub(objective.width()), good));
            }
            prop_assert!(tally.slots().count() as u64 <= SLOTS + 2);
        }

        #[test]
        fn the_order_of_rows_and_of_agents_is_nothing_to_the_sums(
            rows in prop::collection::vec((0u64..5_000, 0u64..2_000), 0..50),
            split in 0usize..50,
        ) {
            let objective = objective(60, 3_600);
            let judged = |rows: &[(u64, u64)]| {
                let mut tally = Tally::default();
                for (due, takes) in rows.iter().rev() {
                    tally.judge(&objective, at(*due), at(due + takes));
                }
                tally
            };
            let (some, others) = rows.split_at(split.min(rows.len()));
            let mut sum = judged(some).sum();
            sum += judged(others).sum();
            prop_assert_eq!(sum, judged(&rows).sum());
        }

        #[test]
        fn more_rows_in_time_never_make_an_objective_missed(good in any::<u32>(), missed in any::<u32>(), ratio in 0..=WHOLE) {
            let (good, missed) = (u64::from(good), u64::from(missed));
            let met = |good, missed| is_met(Ratio(ratio), Counts { good, missed });
            prop_assert!(!met(good, missed) || met(good + 1, missed));
            prop_assert!(!met(good, missed + 1) || met(good, missed));
        }

        #[test]
        fn an_objective_survives_a_mapping_file(ratio in 0..=WHOLE, within in any::<u64>(), over in any::<u64>()) {
            let objective = Objective { ratio: Ratio(ratio), within, over };
            let text = serde_json::to_string(&objective).unwrap();
            prop_assert_eq!(serde_json::from_str::<Objective>(&text).unwrap(), objective);
        }

        #[test]
        fn no_text_and_no_time_panics(text in ".{0,20}", within in any::<u64>(), over in any::<u64>(), due in any::<u64>(), now in any::<u64>()) {
            let _ = Ratio::parse(&text);
            let (objective, due, now) = (objective(within, over), Timestamp::from_ticks(due, 0), Timestamp::from_ticks(now, 0));
            let mut tally = Tally::default();
            tally.judge(&objective, due, now);
            tally.forget(&objective, now);
            let _ = since(&objective, due, now);
        }
    }
}
