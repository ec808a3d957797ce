//! Which objects a policy selects.

use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::local::{MetaValue, SwiftObject};

/// The selection of a mapping: all that is given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Select {
    /// Object names start with this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// Least size in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_size: Option<u64>,
    /// Greatest size in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_size: Option<u64>,
    /// A condition on metadata.
    #[serde(default, rename = "match", skip_serializing_if = "Option::is_none")]
    pub matcher: Option<Match>,
}

/// A tree over metadata `name = value`; names are case-insensitive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Match {
    /// Every branch holds.
    All(Vec<Match>),
    /// At least one branch holds.
    Any(Vec<Match>),
    /// The branch does not hold.
    Not(Box<Match>),
    /// The object has this user metadata with exactly this value.
    Metadata {
        /// Name without `X-Object-Meta-`.
        name: String,
        /// Value.
        value: String,
    },
}

/// Why a selection cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectError {
    /// The exclude pattern.
    #[error("exclude is not a regular expression that can be used: {0}")]
    Pattern(String),
}

/// What a mapping excludes and selects, compiled once.
#[derive(Clone, Debug, Default)]
pub struct Selector {
    exclude: Option<Regex>,
    select: Select,
}

impl Selector {
    /// Compiles a mapping's `exclude` and `select`. An empty pattern excludes nothing: it would match every name, and
    /// nobody who leaves the field empty means that.
    ///
    /// # Errors
    /// When the pattern is not a regular expression, or an enormous one.
    pub fn new(exclude: Option<&str>, select: Option<&Select>) -> Result<Self, SelectError> {
        let compile = |pattern| Regex::new(pattern).map_err(|error| SelectError::Pattern(error.to_string()));
        Ok(Self {
            exclude: exclude
                .filter(|pattern| !pattern.is_empty())
                .map(compile)
                .transpose()?,
            select: select.cloned().unwrap_or_default(),
        })
    }

    /// Whether objects of this name are left alone: the pattern matches at the start of the name.
    #[must_use]
    pub fn excludes(&self, name: &str) -> bool {
        // The leftmost match starts at 0 if any does.
        let found = self.exclude.as_ref().and_then(|exclude| exclude.find(name));
        found.is_some_and(|found| found.start() == 0)
    }

    /// Whether name and size (as a client sees it) are selected.
    #[must_use]
    pub fn by_name_and_size(&self, name: &str, size: u64) -> bool {
        let Select {
            prefix,
            min_size,
            max_size,
            matcher: _,
        } = &self.select;
        prefix.as_deref().is_none_or(|prefix| name.starts_with(prefix))
            && min_size.is_none_or(|min| size >= min)
            && max_size.is_none_or(|max| size <= max)
    }

    /// Whether the object's metadata must be looked at, too.
    #[must_use]
    pub const fn needs_metadata(&self) -> bool {
        self.select.matcher.is_some()
    }

    /// Whether the object's metadata are selected.
    #[must_use]
    pub fn by_metadata(&self, object: &SwiftObject) -> bool {
        self.select
            .matcher
            .as_ref()
            .is_none_or(|matcher| matcher.holds(object))
    }
}

impl Match {
    fn holds(&self, object: &SwiftObject) -> bool {
        match self {
            Self::All(branches) => branches.iter().all(|branch| branch.holds(object)),
            Self::Any(branches) => branches.iter().any(|branch| branch.holds(object)),
            Self::Not(branch) => !branch.holds(object),
            Self::Metadata { name, value } => {
                let found = object.metadata.get(&name.to_ascii_lowercase());
                matches!(found, Some(MetaValue::Text(found)) if found == value)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn excluding(pattern: &str) -> Selector {
        Selector::new(Some(pattern), None).unwrap()
    }

    fn matching(matcher: Match) -> Selector {
        let select = Select {
            matcher: Some(matcher),
            ..Select::default()
        };
        Selector::new(None, Some(&select)).unwrap()
    }

    fn has(name: &str, value: &str) -> Match {
        Match::Metadata {
            name: name.into(),
            value: value.into(),
        }
    }

    fn object(metadata: &[(&str, &str)]) -> SwiftObject {
        SwiftObject {
            metadata: metadata
                .iter()
                .map(|(name, value)| ((*name).to_owned(), MetaValue::Text((*value).to_owned())))
                .collect(),
            ..SwiftObject::default()
        }
    }

    #[test]
    fn an_exclude_pattern_matches_at_the_start_of_the_name() {
        let temporary = excluding("tmp/");
        assert!(temporary.excludes("tmp/a"));
        assert!(!temporary.excludes("a/tmp/b"));
        assert!(!temporary.excludes("tmp"));
        // An alternative counts from the start, too; a pattern may also match nothing, or look at lines.
        assert!(excluding("x|a").excludes("ax"));
        assert!(!excluding("x|b").excludes("ax"));
        assert!(excluding("x*").excludes("anything"));
        assert!(!excluding("(?m)^b").excludes("a\nb"));
        assert!(excluding("(?x) a # a comment").excludes("a"));
        assert!(!Selector::default().excludes("a"));
    }

    #[test]
    fn an_empty_exclude_pattern_excludes_nothing() {
        assert!(!excluding("").excludes("anything"));
    }

    #[test]
    fn a_pattern_that_cannot_be_used_is_an_error_that_names_it() {
        for pattern in ["(", "(?=a)", r"(\w{100}){100}{100}"] {
            let error = Selector::new(Some(pattern), None).unwrap_err();
            assert!(error.to_string().contains("exclude"), "{error}");
        }
    }

    #[test]
    fn prefix_and_sizes_must_all_hold() {
        let select = Select {
            prefix: Some("2024/".into()),
            min_size: Some(10),
            max_size: Some(20),
            matcher: None,
        };
        let selector = Selector::new(None, Some(&select)).unwrap();
        assert!(selector.by_name_and_size("2024/a", 10));
        assert!(selector.by_name_and_size("2024/a", 20));
        for (name, size) in [("2024/a", 9), ("2024/a", 21), ("2023/a", 15)] {
            assert!(!selector.by_name_and_size(name, size));
        }
        assert!(!selector.needs_metadata());
        assert!(selector.by_metadata(&SwiftObject::default()));
    }

    #[test]
    fn metadata_names_are_compared_in_any_case_and_values_exactly() {
        let selector = matching(Match::All(vec![
            Match::Any(vec![has("KEEP", "yes"), has("keep", "always")]),
            Match::Not(Box::new(has("Tmp", "1"))),
        ]));
        assert!(selector.needs_metadata());
        assert!(selector.by_metadata(&object(&[("keep", "yes")])));
        assert!(selector.by_metadata(&object(&[("keep", "always"), ("tmp", "2")])));
        for metadata in [&[("keep", "Yes")][..], &[("keep", "yes"), ("tmp", "1")], &[]] {
            assert!(!selector.by_metadata(&object(metadata)));
        }
    }

    #[test]
    fn bytes_that_are_no_text_equal_no_value() {
        let mut object = object(&[]);
        object
            .metadata
            .insert("keep".into(), MetaValue::Bytes(vec![0xff]));
        assert!(!matching(has("keep", "\u{fffd}")).by_metadata(&object));
    }

    proptest! {
        #[test]
        fn an_escaped_pattern_excludes_exactly_the_names_that_start_with_it(start in r"\PC{1,5}", name in r"\PC{0,9}") {
            let selector = excluding(&regex::escape(&start));
            prop_assert_eq!(selector.excludes(&name), name.starts_with(&start));
            let joined = format!("{start}{name}");
            prop_assert!(selector.excludes(&joined));
        }

        #[test]
        fn no_pattern_panics(pattern in r"[a-z()|*?\\\[\]{}0-9^$]{0,12}|\PC{0,12}", name in r"\PC{0,9}") {
            if let Ok(selector) = Selector::new(Some(&pattern), None) {
                let _ = selector.excludes(&name);
            }
        }
    }
}
