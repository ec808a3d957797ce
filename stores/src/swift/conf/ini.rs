//! Configuration files as Python's `configparser` reads them, which is how Swift reads its own.
//!
//! Options end at `=` or `:`, names are in lower case, a more deeply indented line continues the value above it,
//! `#` and `;` begin a comment only at the start of a line, what `[DEFAULT]` says holds in every section, and
//! `%(name)s` in a value stands for another option's value, `%%` for a percent sign.

use std::collections::BTreeMap;

/// How deep values may refer to each other, as in `configparser`.
const MAX_DEPTH: usize = 10;

/// A file's sections, `[DEFAULT]` apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ini {
    defaults: Section,
    sections: BTreeMap<String, Section>,
}

type Section = BTreeMap<String, String>;

/// What is wrong with a file, without its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct IniError(pub String);

impl Ini {
    /// Parses a file. Bytes are taken as latin-1, one character each: [`bytes`] gives them back.
    pub fn parse(content: &[u8]) -> Result<Self, IniError> {
        let text: String = content.iter().map(|byte| char::from(*byte)).collect();
        let mut ini = Self::default();
        let mut section: Option<String> = None;
        // The option that an indented line continues, and how far its own line is indented.
        let mut open: Option<(String, usize)> = None;
        for (number, line) in text.split('\n').enumerate().map(|(at, line)| (at + 1, line)) {
            let line = line.trim_end();
            let body = line.trim_start();
            if body.is_empty() || body.starts_with(['#', ';']) {
                continue;
            }
            let indent = line.len() - body.len();
            if let (Some(name), Some((option, own))) = (&section, &open)
                && indent > *own
            {
                let value = ini.section_mut(name).entry(option.clone()).or_default();
                value.push('\n');
                value.push_str(body);
                continue;
            }
            if let Some(name) = body
                .strip_prefix('[')
                .and_then(|rest| rest.rsplit_once(']'))
                .map(|(name, _)| name)
            {
                ini.section_mut(name);
                section = Some(name.to_owned());
                open = None;
                continue;
            }
            let Some(name) = &section else {
                return Err(IniError(format!(
                    "line {number} stands before the first [section]: put it into one"
                )));
            };
            let Some((option, value)) = body.split_once(['=', ':']) else {
                return Err(IniError(format!(
                    "line {number} in [{name}] is no `name = value`: correct it or make it a # comment"
                )));
            };
            let option = option.trim_end().to_lowercase();
            ini.section_mut(name)
                .insert(option.clone(), value.trim_start().to_owned());
            open = Some((option, indent));
        }
        Ok(ini)
    }

    fn section_mut(&mut self, name: &str) -> &mut Section {
        if name == "DEFAULT" {
            &mut self.defaults
        } else {
            self.sections.entry(name.to_owned()).or_default()
        }
    }

    /// Takes over what another file says: later files win, as with a `.conf.d` folder.
    pub fn merge(&mut self, later: Self) {
        let Self { defaults, sections } = later;
        self.defaults.extend(defaults);
        for (name, options) in sections {
            self.section_mut(&name).extend(options);
        }
    }

    /// The names of the sections, `DEFAULT` not among them.
    pub fn sections(&self) -> impl Iterator<Item = &str> {
        self.sections.keys().map(String::as_str)
    }

    /// An option's value, from the section or from `[DEFAULT]`.
    pub fn get(&self, section: &str, option: &str) -> Result<Option<String>, IniError> {
        self.raw(section, option)
            .map(|value| self.interpolate(section, option, value, 0))
            .transpose()
    }

    fn raw(&self, section: &str, option: &str) -> Option<&str> {
        let own = self.sections.get(section).and_then(|options| options.get(option));
        own.or_else(|| self.defaults.get(option)).map(String::as_str)
    }

    fn interpolate(
        &self,
        section: &str,
        option: &str,
        value: &str,
        depth: usize,
    ) -> Result<String, IniError> {
        let wrong = |what: &str| {
            IniError(format!(
                "`{option}` in [{section}] {what}; a percent sign is written as %%"
            ))
        };
        if depth > MAX_DEPTH {
            return Err(wrong("refers to other options too deeply"));
        }
        let mut result = String::new();
        let mut rest = value;
        while let Some((before, after)) = rest.split_once('%') {
            result.push_str(before);
            if let Some(after) = after.strip_prefix('%') {
                result.push('%');
                rest = after;
            } else if let Some((name, after)) =
                after.strip_prefix('(').and_then(|after| after.split_once(")s"))
            {
                let name = name.to_lowercase();
                let other = self
                    .raw(section, &name)
                    .ok_or_else(|| wrong(&format!("refers to `{name}`, which is not there")))?;
                result.push_str(&self.interpolate(section, option, other, depth + 1)?);
                rest = after;
            } else {
                return Err(wrong("has a single %"));
            }
        }
        result.push_str(rest);
        Ok(result)
    }
}

/// The bytes that a value stands for.
pub(super) fn bytes(value: &str) -> Vec<u8> {
    value
        .chars()
        .map(|c| u8::try_from(u32::from(c)).unwrap_or(b'?'))
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn get(text: &str, section: &str, option: &str) -> Result<Option<String>, String> {
        let ini = Ini::parse(text.as_bytes()).map_err(|error| error.0)?;
        ini.get(section, option).map_err(|error| error.0)
    }

    #[test]
    fn values_are_read_as_python_reads_them() {
        let text = "# comment\n[DEFAULT]\nPort=1\n[a b]\nx : y = z ; no comment\n; comment\nlong = 1,\n  2,\n  # in between\n\n  3\n[c]\nport: 2\n";
        let value = |section: &str, option: &str| get(text, section, option).unwrap().unwrap();
        assert_eq!(value("a b", "port"), "1");
        assert_eq!(value("c", "port"), "2");
        assert_eq!(value("a b", "x"), "y = z ; no comment");
        assert_eq!(value("a b", "long"), "1,\n2,\n3");
        assert_eq!(get(text, "c", "x").unwrap(), None);
        assert_eq!(value("absent", "port"), "1");
    }

    #[test]
    fn percent_signs_and_references_are_resolved() {
        let text =
            "[DEFAULT]\nbase = /srv\n[a]\nx = %(base)s/50%%\nbad = 5%\nlost = %(none)s\nloop = %(loop)s\n";
        assert_eq!(get(text, "a", "x").unwrap().unwrap(), "/srv/50%");
        assert!(get(text, "a", "bad").unwrap_err().contains("%%"));
        assert!(get(text, "a", "lost").unwrap_err().contains("`none`"));
        assert!(get(text, "a", "loop").unwrap_err().contains("deeply"));
    }

    #[test]
    fn what_is_not_a_setting_is_named_by_its_line() {
        assert!(get("x = 1\n", "a", "x").unwrap_err().starts_with("line 1 "));
        assert!(
            get("[a]\n\nnonsense\n", "a", "x")
                .unwrap_err()
                .starts_with("line 3 in [a]")
        );
    }

    #[test]
    fn bytes_beyond_ascii_survive() {
        let ini = Ini::parse(b"[a]\nx = \xff\xc3\xa9\n").unwrap();
        assert_eq!(bytes(&ini.get("a", "x").unwrap().unwrap()), b"\xff\xc3\xa9");
    }

    proptest! {
        #[test]
        fn no_file_panics(content in proptest::collection::vec(prop_oneof![
            any::<u8>(), Just(b'['), Just(b']'), Just(b'\n'), Just(b'='), Just(b'%'), Just(b'('), Just(b')'), Just(b's'), Just(b' ')], 0..80)) {
            if let Ok(ini) = Ini::parse(&content) {
                for section in ini.sections() {
                    for option in ini.sections[section].keys() {
                        let _ = ini.get(section, option);
                    }
                }
            }
        }
    }
}
