//! Durations as users write them.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A length of time: numbers with a unit, `30d`, `1h30m`, `0s`. Parsed; it is written back as the user wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Duration {
    written: String,
    seconds: u64,
}

/// A text that is no duration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadDuration(String);

impl fmt::Display for BadDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is no duration: write numbers of up to five digits with a unit d, h, m or s, as in 30d or 1h30m",
            self.0
        )
    }
}

impl std::error::Error for BadDuration {}

impl Duration {
    /// The longest text, in characters.
    pub const MAX_LENGTH: usize = 32;

    /// The regular expression that the schema asks for.
    pub const PATTERN: &'static str = "^([0-9]{1,5}(d|h|m|s))+$";

    /// Seconds. At most six groups of 99999 days: it cannot overflow.
    #[must_use]
    pub const fn seconds(&self) -> u64 {
        self.seconds
    }

    /// As the user wrote it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.written
    }
}

impl TryFrom<String> for Duration {
    type Error = BadDuration;

    fn try_from(written: String) -> Result<Self, BadDuration> {
        match seconds_of(&written) {
            Some(seconds) => Ok(Self { written, seconds }),
            None => Err(BadDuration(written.chars().take(Self::MAX_LENGTH).collect())),
        }
    }
}

impl std::str::FromStr for Duration {
    type Err = BadDuration;

    fn from_str(written: &str) -> Result<Self, BadDuration> {
        written.to_owned().try_into()
    }
}

impl From<Duration> for String {
    fn from(duration: Duration) -> Self {
        duration.written
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

fn seconds_of(text: &str) -> Option<u64> {
    if text.is_empty() || text.len() > Duration::MAX_LENGTH {
        return None;
    }
    let mut total: u64 = 0;
    let mut digits = String::new();
    for character in text.chars() {
        if character.is_ascii_digit() {
            digits.push(character);
            continue;
        }
        let unit = match character {
            'd' => 86_400,
            'h' => 3_600,
            'm' => 60,
            's' => 1,
            _ => return None,
        };
        if digits.len() > 5 {
            return None;
        }
        total += digits.parse::<u64>().ok()? * unit;
        digits.clear();
    }
    digits.is_empty().then_some(total)
}

impl JsonSchema for Duration {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": Self::PATTERN, "maxLength": Self::MAX_LENGTH })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(text: &str) -> Option<u64> {
        text.parse::<Duration>().ok().map(|duration| duration.seconds())
    }

    #[test]
    fn units_add_up() {
        assert_eq!(seconds("30d"), Some(2_592_000));
        assert_eq!(seconds("1h30m"), Some(5_400));
        assert_eq!(seconds("0s"), Some(0));
        assert_eq!(seconds("1d1h1m1s"), Some(90_061));
        assert_eq!(
            seconds("99999d99999d99999d99999d99999d"),
            Some(5 * 99_999 * 86_400)
        );
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in [
            "", "5", "h", "1x", "-1s", "1.5h", "100000s", " 1s", "1s ", "1h30", "1H", "٣s",
        ] {
            assert_eq!(seconds(text), None, "{text:?}");
        }
        assert_eq!(seconds(&"1s".repeat(17)), None);
    }

    #[test]
    fn it_is_written_back_as_it_was_given() {
        let duration: Duration = "90m".parse().unwrap();
        assert_eq!(serde_json::to_string(&duration).unwrap(), "\"90m\"");
    }
}
