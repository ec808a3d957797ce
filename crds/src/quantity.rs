//! Sizes in bytes as Kubernetes writes them.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize, Serializer};

/// A size in bytes: a number, or a text with a unit as in `5Mi` or `1.5G`. The pattern bounds the digits for each
/// unit so that no quantity overflows. Written back as the user wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quantity {
    written: Written,
    bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Number(u64),
    Text(String),
}

/// A text that is no size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadQuantity(String);

impl fmt::Display for BadQuantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} is no size: write a number of bytes, or a number with k, M, G, T, P, Ki, Mi, Gi, Ti or Pi, as in 5Mi",
            self.0
        )
    }
}

impl std::error::Error for BadQuantity {}

/// The largest number that may be written without a unit: no text that fits the pattern comes out above 2^61.
const MAX_NUMBER: u64 = 1_000_000_000_000_000_000;

impl Quantity {
    /// The regular expression that the schema asks for.
    pub const PATTERN: &'static str = "^([0-9]{1,18}|([0-9]{1,15}(\\.[0-9]{1,9})?(k|Ki)|[0-9]{1,12}(\\.[0-9]{1,9})?(M|Mi)\
        |[0-9]{1,9}(\\.[0-9]{1,9})?(G|Gi)|[0-9]{1,6}(\\.[0-9]{1,9})?(T|Ti)|[0-9]{1,3}(\\.[0-9]{1,9})?(P|Pi)))$";

    /// Bytes; a fraction of a byte is rounded up.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// So many bytes, written as a number.
    #[must_use]
    pub const fn of_bytes(bytes: u64) -> Self {
        Self {
            written: Written::Number(bytes),
            bytes,
        }
    }
}

impl std::str::FromStr for Quantity {
    type Err = BadQuantity;

    fn from_str(text: &str) -> Result<Self, BadQuantity> {
        match bytes_of(text) {
            Some(bytes) => Ok(Self {
                written: Written::Text(text.to_owned()),
                bytes,
            }),
            None => Err(BadQuantity(format!(
                "{:?}",
                text.chars().take(40).collect::<String>()
            ))),
        }
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.written {
            Written::Number(number) => write!(f, "{number}"),
            Written::Text(text) => f.write_str(text),
        }
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.written.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Written::deserialize(deserializer)? {
            Written::Number(number) if number <= MAX_NUMBER => Ok(Self::of_bytes(number)),
            Written::Number(number) => Err(D::Error::custom(BadQuantity(number.to_string()))),
            Written::Text(text) => text.parse().map_err(D::Error::custom),
        }
    }
}

fn bytes_of(text: &str) -> Option<u64> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let (factor, digits): (u128, usize) = match unit {
        "" => (1, 18),
        "k" => (1000, 15),
        "Ki" => (1 << 10, 15),
        "M" => (1000u128.pow(2), 12),
        "Mi" => (1 << 20, 12),
        "G" => (1000u128.pow(3), 9),
        "Gi" => (1 << 30, 9),
        "T" => (1000u128.pow(4), 6),
        "Ti" => (1 << 40, 6),
        "P" => (1000u128.pow(5), 3),
        "Pi" => (1 << 50, 3),
        _ => return None,
    };
    let (whole, fraction) = match number.split_once('.') {
        Some((whole, fraction)) if !unit.is_empty() && (1..=9).contains(&fraction.len()) => (whole, fraction),
        Some(_) => return None,
        None => (number, ""),
    };
    if whole.is_empty() || whole.len() > digits || fraction.contains('.') {
        return None;
    }
    let scale = 10u128.pow(u32::try_from(fraction.len()).ok()?);
    let scaled: u128 = format!("{whole}{fraction}").parse().ok()?;
    u64::try_from((scaled * factor).div_ceil(scale)).ok()
}

impl JsonSchema for Quantity {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Quantity".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "minimum": 0,
            "maximum": MAX_NUMBER,
            "pattern": Self::PATTERN,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(json: &str) -> Option<u64> {
        serde_json::from_str::<Quantity>(json)
            .ok()
            .map(|quantity| quantity.bytes())
    }

    #[test]
    fn units_are_those_of_kubernetes() {
        assert_eq!(bytes("\"5Mi\""), Some(5 << 20));
        assert_eq!(bytes("\"5M\""), Some(5_000_000));
        assert_eq!(bytes("\"1.5Gi\""), Some(3 << 29));
        assert_eq!(bytes("\"0.1Ki\""), Some(103));
        assert_eq!(bytes("\"0\""), Some(0));
        assert_eq!(bytes("1048576"), Some(1 << 20));
    }

    #[test]
    fn the_largest_of_each_unit_does_not_overflow() {
        for (unit, digits) in [("", 18), ("Ki", 15), ("Mi", 12), ("Gi", 9), ("Ti", 6), ("Pi", 3)] {
            let text = format!("{}{unit}", "9".repeat(digits));
            assert!(bytes(&format!("\"{text}\"")).is_some(), "{text}");
            assert_eq!(bytes(&format!("\"9{text}\"")), None, "9{text}");
        }
        assert_eq!(bytes("1000000000000000001"), None);
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for json in [
            "\"\"",
            "\"Mi\"",
            "\"1m\"",
            "\"-1\"",
            "-1",
            "1.5",
            "\"1.\"",
            "\".5Mi\"",
            "\"1.5\"",
            "\"1..5Mi\"",
            "\"5 Mi\"",
            "\"5Ei\"",
        ] {
            assert_eq!(bytes(json), None, "{json}");
        }
    }
}
