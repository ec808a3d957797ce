//! Swift's timestamps: a time in units of 10 microseconds and an internal offset; and the three times of a row.
//!
//! Swift writes them as text: `1795331020.42037`, with an offset `1795331224.99764_1` or, of fixed width,
//! `1795331224.99764_0000000000000001`. A row's `created_at` may add the times of later POSTs as differences:
//! `1795331103.54963+55269+30755`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Units of 10 microseconds in one second.
const TICKS_PER_SECOND: u64 = 100_000;

/// The latest time that Swift's fixed width can hold: 9999999999.99999, in the year 2286.
const MAX_TICKS: u64 = 999_999_999_999_999;

/// Why a text is not a timestamp of Swift.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimestampError {
    /// Not of the form `seconds[.decimals][_offset]`.
    #[error("{0:?} is not a timestamp as Swift writes them; look at the row or header that it came from")]
    Malformed(String),
    /// Before 1970 or after the year 2286.
    #[error("{0:?} is outside of the times that Swift can hold; look at the row or header that it came from")]
    OutOfRange(String),
}

/// A point in time as Swift orders it: first by time, then by offset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// Units of 10 microseconds since 1970; at most [`MAX_TICKS`].
    ticks: u64,
    /// The internal offset: 0 for a user's own requests, positive for the reconciler, object versioning and releases.
    offset: u64,
}

impl Timestamp {
    /// The time of so many units of 10 microseconds since 1970. Later than Swift can write (year 2286) becomes the
    /// latest that it can.
    #[must_use]
    pub const fn from_ticks(ticks: u64, offset: u64) -> Self {
        let ticks = if ticks > MAX_TICKS { MAX_TICKS } else { ticks };
        Self { ticks, offset }
    }

    /// The time of so many whole seconds since 1970, without offset.
    #[must_use]
    pub const fn from_unix_seconds(seconds: u64) -> Self {
        Self::from_ticks(seconds.saturating_mul(TICKS_PER_SECOND), 0)
    }

    /// The same time with this offset.
    #[must_use]
    pub const fn with_offset(self, offset: u64) -> Self {
        Self {
            ticks: self.ticks,
            offset,
        }
    }

    /// Units of 10 microseconds since 1970.
    #[must_use]
    pub const fn ticks(self) -> u64 {
        self.ticks
    }

    /// The internal offset.
    #[must_use]
    pub const fn offset(self) -> u64 {
        self.offset
    }

    /// Whole seconds since 1970, rounded down.
    #[must_use]
    pub const fn unix_seconds(self) -> u64 {
        self.ticks / TICKS_PER_SECOND
    }

    /// This much later, rounded down to 10 microseconds; the offset stays.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        let ticks = u64::try_from(duration.as_micros() / 10).unwrap_or(u64::MAX);
        Self::from_ticks(self.ticks.saturating_add(ticks), self.offset)
    }

    /// The time from `earlier` to this; zero if that is the later one. Offsets take no time.
    #[must_use]
    pub const fn duration_since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.ticks.saturating_sub(earlier.ticks) * 10)
    }

    /// Reads every form that Swift writes: with and without decimals (more than five are rounded), with and without
    /// an offset of up to 16 hex digits.
    ///
    /// # Errors
    /// When the text has another form, or the time is after the year 2286.
    pub fn parse(text: &str) -> Result<Self, TimestampError> {
        let malformed = || TimestampError::Malformed(text.to_owned());
        let (time, offset) = match text.split_once('_') {
            Some((time, "")) => (time, 0),
            Some((time, hex)) => (time, parse_hex(hex).ok_or_else(malformed)?),
            None => (text, 0),
        };
        let (whole, decimals) = time.split_once('.').unwrap_or((time, ""));
        if !is_digits(whole) || !is_digits(decimals) {
            return Err(malformed());
        }
        // In floating point, as Swift does it: what has more decimals is rounded the same way.
        let seconds: f64 = time.parse().map_err(|_| malformed())?;
        let ticks = (seconds / 1e-5).round_ties_even();
        if ticks > MAX_TICKS as f64 {
            return Err(TimestampError::OutOfRange(text.to_owned()));
        }
        let ticks = ticks as u64;
        Ok(Self { ticks, offset })
    }
}

/// Hex digits as Swift writes them: one to sixteen, without sign.
fn parse_hex(text: &str) -> Option<u64> {
    let plausible = (1..=16).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    plausible.then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

fn is_digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Swift's internal form: `1795331020.42037`, or with an offset `1795331020.42037_0000000000000001`. Texts of this
/// form sort as the times do.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, rest) = (self.unix_seconds(), self.ticks % TICKS_PER_SECOND);
        write!(f, "{seconds:010}.{rest:05}")?;
        match self.offset {
            0 => Ok(()),
            offset => write!(f, "_{offset:016x}"),
        }
    }
}

impl FromStr for Timestamp {
    type Err = TimestampError;

    fn from_str(text: &str) -> Result<Self, TimestampError> {
        Self::parse(text)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// The three times of a row: Swift merges body, content type and metadata each by its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RowTime {
    /// t1: of the body, or of the DELETE. Only this one can carry an offset of its own.
    pub data: Timestamp,
    /// t2: of the content type.
    pub content_type: Timestamp,
    /// t3: of the metadata.
    pub meta: Timestamp,
}

impl RowTime {
    /// Reads `created_at`: `t1[±d2[±d3]]`, hex differences in units of 10 microseconds, t2 = t1 + d2, t3 = t2 + d3.
    /// A difference of zero keeps the offset too; any other time than t1's has none.
    ///
    /// # Errors
    /// When the text has another form, or one of the times is outside of what Swift can hold.
    pub fn parse(created_at: &str) -> Result<Self, TimestampError> {
        let malformed = || TimestampError::Malformed(created_at.to_owned());
        let is_sign = |c: char| c == '+' || c == '-';
        let (first, mut rest) = created_at.split_at(created_at.find(is_sign).unwrap_or(created_at.len()));
        let data = Timestamp::parse(first)?;
        let mut times = [data; 3];
        for index in 1..3 {
            let previous = times[index - 1];
            times[index] = previous;
            if rest.is_empty() {
                continue;
            }
            let end = rest[1..].find(is_sign).map_or(rest.len(), |at| at + 1);
            let (delta, after) = rest.split_at(end);
            let magnitude = parse_hex(&delta[1..]).ok_or_else(malformed)?;
            let ticks = if delta.starts_with('-') {
                previous.ticks.checked_sub(magnitude)
            } else {
                previous.ticks.checked_add(magnitude)
            };
            if magnitude != 0 {
                let ticks = ticks
                    .filter(|ticks| *ticks <= MAX_TICKS)
                    .ok_or_else(|| TimestampError::OutOfRange(created_at.to_owned()))?;
                times[index] = Timestamp { ticks, offset: 0 };
            }
            rest = after;
        }
        if !rest.is_empty() {
            return Err(malformed());
        }
        let [data, content_type, meta] = times;
        Ok(Self {
            data,
            content_type,
            meta,
        })
    }

    /// One time for all three: a body that was not POSTed to.
    #[must_use]
    pub const fn of_data(data: Timestamp) -> Self {
        Self {
            data,
            content_type: data,
            meta: data,
        }
    }

    /// The newest of the three.
    #[must_use]
    pub fn newest(&self) -> Timestamp {
        self.data.max(self.content_type).max(self.meta)
    }
}

/// As Swift writes `created_at`: the offset in its short form, both differences or none.
impl fmt::Display for RowTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.data.with_offset(0))?;
        if self.data.offset != 0 {
            write!(f, "_{:x}", self.data.offset)?;
        }
        if (self.content_type.ticks, self.meta.ticks) == (self.data.ticks, self.data.ticks) {
            return Ok(());
        }
        for (earlier, later) in [(self.data, self.content_type), (self.content_type, self.meta)] {
            let sign = if later.ticks < earlier.ticks { '-' } else { '+' };
            write!(f, "{sign}{:x}", later.ticks.abs_diff(earlier.ticks))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn time(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    #[test]
    fn every_form_that_swift_writes_is_read() {
        let ticks = 179_533_102_042_037;
        for (text, expected) in [
            ("1795331020.42037", Timestamp::from_ticks(ticks, 0)),
            ("1795331020.42037_1", Timestamp::from_ticks(ticks, 1)),
            (
                "1795331020.42037_0000000000000001",
                Timestamp::from_ticks(ticks, 1),
            ),
            (
                "1795331020.42037_ffffffffffffffff",
                Timestamp::from_ticks(ticks, u64::MAX),
            ),
            ("1795331020.42037_FF", Timestamp::from_ticks(ticks, 255)),
            ("1795331020", Timestamp::from_unix_seconds(1_795_331_020)),
            ("1795331020.4", Timestamp::from_ticks(179_533_102_040_000, 0)),
            ("1795331020.420374", Timestamp::from_ticks(ticks, 0)),
            ("1795331020.420369999", Timestamp::from_ticks(ticks, 0)),
            (
                "7244322913.94226575",
                Timestamp::from_ticks(724_432_291_394_226, 0),
            ),
            ("0", Timestamp::default()),
            ("0000000001.00000", Timestamp::from_unix_seconds(1)),
            ("9999999999.99999", Timestamp::from_ticks(MAX_TICKS, 0)),
        ] {
            assert_eq!(time(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_timestamp_is_refused_and_named() {
        for text in [
            "",
            ".",
            "_1",
            "a",
            "1.5e3",
            "-1",
            "+1",
            " 1",
            "1.2.3",
            "1_g",
            "1_+1",
            "1_1_1",
            "1_11111111111111111",
            "nan",
            "١",
        ] {
            assert_eq!(
                Timestamp::parse(text),
                Err(TimestampError::Malformed(text.into())),
                "{text}"
            );
        }
        for text in [
            "10000000000",
            "9999999999.999999",
            "99999999999999999999999999999999",
        ] {
            assert_eq!(
                Timestamp::parse(text),
                Err(TimestampError::OutOfRange(text.into())),
                "{text}"
            );
        }
    }

    #[test]
    fn an_offset_is_newer_than_none_and_older_than_the_next_instant() {
        assert!(time("1.00000") < time("1.00000_1"));
        assert!(time("1.00000_f") < time("1.00000_10"));
        assert!(time("1.00000_ffffffffffffffff") < time("1.00001"));
    }

    #[test]
    fn created_at_of_a_post_is_read_as_swift_reads_it() {
        let row = RowTime::parse("1795331103.54963+55269+30755").unwrap();
        assert_eq!(row.data, time("1795331103.54963"));
        assert_eq!(row.content_type, time("1795331107.03740"));
        assert_eq!(row.meta, time("1795331109.02225"));
        let row = RowTime::parse("1795331103.54963+0+223a8").unwrap();
        assert_eq!(row.content_type, row.data);
        assert_eq!(row.newest(), row.meta);
    }

    #[test]
    fn the_offset_of_the_data_goes_with_a_zero_difference_only() {
        let row = RowTime::parse("1500000000.00001_ff+1869f+186a0").unwrap();
        assert_eq!(row.data, time("1500000000.00001_ff"));
        assert_eq!(row.content_type, time("1500000001.00000"));
        assert_eq!(row.meta, time("1500000002.00000"));
        let row = RowTime::parse("1795331224.99764_1+0+0").unwrap();
        assert_eq!(row, RowTime::of_data(time("1795331224.99764_1")));
    }

    #[test]
    fn a_negative_difference_does_not_make_a_row_older() {
        let row = RowTime::parse("1500000010.00000-7a120+aae60").unwrap();
        assert_eq!(row.content_type, time("1500000005.00000"));
        assert_eq!(row.meta, time("1500000012.00000"));
        let row = RowTime::parse("1500000010.00000_1-7a120+0").unwrap();
        assert_eq!(row.newest(), row.data);
    }

    #[test]
    fn a_single_difference_is_the_content_types() {
        let row = RowTime::parse("1500000010.00000+1").unwrap();
        assert_eq!(row.content_type, time("1500000010.00001"));
        assert_eq!(row.meta, row.content_type);
    }

    #[test]
    fn a_created_at_of_another_form_is_refused() {
        for text in [
            "",
            "+1",
            "1+",
            "1+1+",
            "1+1+1+1",
            "1+x",
            "1--1",
            "1+1_1",
            "1-ffffff",
            "1+ffffffffffffffff",
        ] {
            assert!(RowTime::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_time_between_is_zero_when_the_other_is_later() {
        let (early, late) = (time("10.00001"), time("12.5"));
        assert_eq!(late.duration_since(early), Duration::from_micros(2_499_990));
        assert_eq!(early.duration_since(late), Duration::ZERO);
        assert_eq!(early.plus(Duration::from_micros(2_499_999)), late);
        assert_eq!(early.plus(Duration::MAX), Timestamp::from_ticks(MAX_TICKS, 0));
    }

    #[test]
    fn json_holds_the_internal_form() {
        let value = time("1795331020.42037_1");
        let json = serde_json::to_string(&value).unwrap();
        assert_eq!(json, "\"1795331020.42037_0000000000000001\"");
        assert_eq!(serde_json::from_str::<Timestamp>(&json).unwrap(), value);
    }

    fn any_time() -> impl Strategy<Value = Timestamp> {
        let offset = prop_oneof![Just(0), 0..3_u64, any::<u64>()];
        (0..=MAX_TICKS, offset).prop_map(|(ticks, offset)| Timestamp::from_ticks(ticks, offset))
    }

    proptest! {
        #[test]
        fn a_timestamp_survives_its_text(time in any_time()) {
            prop_assert_eq!(Timestamp::parse(&time.to_string()), Ok(time));
        }

        #[test]
        fn texts_sort_as_times_do(a in any_time(), b in any_time()) {
            prop_assert_eq!(a.to_string().cmp(&b.to_string()), a.cmp(&b));
        }

        #[test]
        fn a_rows_times_survive_their_text(
            data in any_time(), content_type in 0..=MAX_TICKS, meta in 0..=MAX_TICKS, same in any::<(bool, bool)>()
        ) {
            let then = |previous: Timestamp, ticks, same| {
                if same || ticks == previous.ticks { previous } else { Timestamp::from_ticks(ticks, 0) }
            };
            let content_type = then(data, content_type, same.0);
            let meta = then(content_type, meta, same.1);
            let row = RowTime { data, content_type, meta };
            prop_assert_eq!(RowTime::parse(&row.to_string()), Ok(row));
        }

        #[test]
        fn no_text_panics(text in r"[0-9a-f_.+\-]{0,40}|\PC*") {
            let _ = (Timestamp::parse(&text), RowTime::parse(&text));
        }
    }
}
