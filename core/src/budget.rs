//! How many deletes a policy may carry out in a window of time: the brake on a mistake.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::timestamp::Timestamp;

/// At most so many deletes in so much time, counted for each container database by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeleteBudget {
    /// How many.
    pub max: BudgetMax,
    /// In how many seconds.
    pub window: u64,
}

impl DeleteBudget {
    /// The window.
    #[must_use]
    pub fn window(&self) -> Duration {
        Duration::from_secs(self.window)
    }
}

/// A number of deletes, or a share of the rows that were live when the window began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub enum BudgetMax {
    /// So many.
    Rows(u64),
    /// In thousandths of a percent.
    Share(u32),
}

/// A whole in thousandths of a percent.
const WHOLE: u32 = 100_000;

/// Deletes of another agent's part of the names, counted while they were read past. Agents do not talk to each other,
/// but they read the same rows: so each can tell when another may have used up its budget, and may keep deletes waiting
/// for a person.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SeenDeletes {
    /// When the current window began.
    pub since: Timestamp,
    /// Those of the current window.
    pub count: u64,
    /// Those of the window before. The other agent's windows begin at other times.
    pub before: u64,
}

impl SeenDeletes {
    /// Counts more of them. A window lasts until the first delete after its end.
    #[must_use]
    pub fn add(self, more: u64, now: Timestamp, window: Duration) -> Self {
        if now < self.since.plus(window) {
            return Self {
                count: self.count.saturating_add(more),
                ..self
            };
        }
        let follows = now < self.since.plus(window.saturating_mul(2));
        Self {
            since: now,
            count: more,
            before: if follows { self.count } else { 0 },
        }
    }

    /// Whether more of them than `max` may lie within one window of the other agent's.
    #[must_use]
    pub fn may_exceed(&self, max: u64) -> bool {
        self.count.saturating_add(self.before) > max
    }

    /// Whether what was read past at this time may be among them.
    #[must_use]
    pub fn may_have(&self, passed: Timestamp, window: Duration) -> bool {
        passed.plus(window.saturating_mul(2)) >= self.since
    }
}

/// As it stands in files and policies: `100`, `"100"` or `"5%"`.
#[derive(Clone, Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Number(u64),
    Text(String),
}

/// Not a number of deletes, nor a share of them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither a number nor a share like 5% or 0.5% (at most 100%)")]
pub struct BudgetError(String);

impl BudgetMax {
    /// Reads `100` or `5%`, with up to three decimals.
    ///
    /// # Errors
    /// [`BudgetError`].
    pub fn parse(text: &str) -> Result<Self, BudgetError> {
        let refused = || BudgetError(text.to_owned());
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = |text: &str| match digits(text) {
            true => text.parse::<u32>().map_err(|_| refused()),
            false => Err(refused()),
        };
        let Some(share) = text.strip_suffix('%') else {
            return number(text).map(|rows| Self::Rows(rows.into()));
        };
        let (whole, thousandths) = match share.split_once('.') {
            None => (share, "000".to_owned()),
            Some((whole, decimals)) if digits(decimals) && decimals.len() <= 3 => {
                (whole, format!("{decimals:0<3}"))
            }
            Some(_) => return Err(refused()),
        };
        let share = number(whole)?
            .checked_mul(1000)
            .and_then(|share| share.checked_add(number(&thousandths).ok()?))
            .filter(|share| *share <= WHOLE);
        share.map(Self::Share).ok_or_else(refused)
    }

    /// How many deletes these are, of so many live rows. A share that is not nothing allows one delete at least: else a
    /// small container could never lose an object.
    #[must_use]
    pub fn of(self, live: u64) -> u64 {
        match self {
            Self::Rows(rows) => rows,
            Self::Share(0) => 0,
            Self::Share(share) => {
                let product = u128::from(live) * u128::from(share);
                u64::try_from(product.div_ceil(u128::from(WHOLE)))
                    .unwrap_or(u64::MAX)
                    .max(1)
            }
        }
    }
}

impl TryFrom<Written> for BudgetMax {
    type Error = BudgetError;

    fn try_from(written: Written) -> Result<Self, BudgetError> {
        match written {
            Written::Number(rows) => Ok(Self::Rows(rows)),
            Written::Text(text) => Self::parse(&text),
        }
    }
}

impl From<BudgetMax> for Written {
    fn from(max: BudgetMax) -> Self {
        match max {
            BudgetMax::Rows(rows) => Self::Number(rows),
            BudgetMax::Share(share) => {
                let text = format!("{}.{:03}", share / 1000, share % 1000);
                Self::Text(format!("{}%", text.trim_end_matches('0').trim_end_matches('.')))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_budget_is_a_number_or_a_share_of_the_live_rows() {
        let of = |text, live| BudgetMax::parse(text).unwrap().of(live);
        assert_eq!(of("7", 1_000_000), 7);
        assert_eq!(of("0", 10), 0);
        assert_eq!(of("5%", 1000), 50);
        assert_eq!(of("5%", 1001), 51);
        assert_eq!(of("0.5%", 1000), 5);
        assert_eq!(of("0.001%", 1000), 1);
        assert_eq!(of("5%", 0), 1, "a container that was just emptied");
        assert_eq!(of("0%", 1000), 0);
        assert_eq!(of("100%", 3), 3);
        for wrong in [
            "", "%", "5 %", "-1", "1.5", "100.001%", "1e3", "5.0000%", ".5%", "5.%",
        ] {
            assert!(BudgetMax::parse(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        /// Whenever the other agent's windows begin: all that it may have kept waiting is known.
        #[test]
        fn what_another_agent_may_have_kept_waiting_is_known_to_all(
            steps in proptest::collection::vec((0u64..25, 0u64..5), 1..60), max in 0u64..12, begin in 0u64..400,
        ) {
            const WINDOW: Duration = Duration::from_secs(20);
            let at = |seconds| Timestamp::from_unix_seconds(1_800_000_000 + seconds);
            let (mut seen, mut now, mut marked) = (SeenDeletes::default(), 0, Vec::new());
            for (wait, deletes) in steps {
                now += wait;
                seen = seen.add(deletes, at(now), WINDOW);
                marked.push((now, deletes, false));
                if seen.may_exceed(max) {
                    for (passed, _, mark) in &mut marked {
                        *mark |= seen.may_have(at(*passed), WINDOW);
                    }
                }
            }
            let within: Vec<_> = marked.iter().filter(|(time, ..)| (begin..begin + 20).contains(time)).collect();
            if within.iter().map(|(_, deletes, _)| deletes).sum::<u64>() > max {
                prop_assert!(within.iter().all(|(.., mark)| *mark), "{within:?}");
            }
        }

        #[test]
        fn a_budget_survives_a_mapping_file(rows in any::<u64>(), share in 0..=WHOLE, window in any::<u64>(), is_share in any::<bool>()) {
            let max = if is_share { BudgetMax::Share(share) } else { BudgetMax::Rows(rows) };
            let budget = DeleteBudget { max, window };
            let text = serde_json::to_string(&budget).unwrap();
            prop_assert_eq!(serde_json::from_str::<DeleteBudget>(&text).unwrap(), budget);
        }

        #[test]
        fn no_text_panics(text in ".{0,20}") {
            let _ = BudgetMax::parse(&text);
        }
    }
}
