//! `onespace import`: a `sync.json` of 1space becomes SyncPolicies and Secrets.

mod entry;
mod settings;

use std::collections::BTreeMap;
use std::io::{Read as _, Write};

use anyhow::Context as _;
use onespace_core::validate::validate;
use serde_json::{Value, json};

use self::entry::{Entry, Kind};
use crate::admission::Admission;
use crate::args::Import;

/// Larger files are no configuration, in bytes.
const MAX_FILE: u64 = 32 << 20;

/// Prints the YAML of what 1space's file says. Notes stand as comments above what they are about and on `err`, too.
/// `false` = something needs a person.
///
/// # Errors
/// When the file cannot be read or is not 1space's.
pub fn run(args: &Import, out: &mut dyn Write, err: &mut dyn Write) -> anyhow::Result<bool> {
    let Import { file, namespace } = args;
    let name = file.display();
    let mut text = String::new();
    std::fs::File::open(file)
        .and_then(|file| file.take(MAX_FILE).read_to_string(&mut text))
        .with_context(|| format!("{name} cannot be read"))?;
    translate(
        &name.to_string(),
        &text,
        namespace.as_deref(),
        &Admission::new()?,
        out,
        err,
    )
}

/// The same with the file's text; `name` is what messages call it.
///
/// # Errors
/// When the text is not 1space's.
pub fn translate(
    name: &str,
    text: &str,
    namespace: Option<&str>,
    admission: &Admission,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> anyhow::Result<bool> {
    // The parser's message has line and column, and never a value of a well-formed file.
    let config: Value = serde_json::from_str(text).with_context(|| format!("{name} is not JSON"))?;
    let config = config
        .as_object()
        .with_context(|| format!("{name} is no sync.json: it must be a JSON object"))?;

    let mut names = Names::default();
    let mut secrets = Secrets::default();
    let mut policies = Vec::new();
    for (list, kind) in [("containers", Kind::Container), ("migrations", Kind::Migration)] {
        let entries = match config.get(list) {
            None => &[],
            Some(Value::Array(entries)) => entries.as_slice(),
            Some(_) => anyhow::bail!("{name}: {list} must be a list"),
        };
        for (index, entry) in entries.iter().enumerate() {
            let place = format!("{list}[{index}]");
            let entry = entry
                .as_object()
                .with_context(|| format!("{name}: {place} must be an object"))?;
            let translated = Entry::translate(kind, entry).with_context(|| format!("{name}: {place}"))?;
            policies.push((place, translated));
        }
    }
    anyhow::ensure!(
        !policies.is_empty(),
        "{name} is no sync.json: it has neither containers nor migrations"
    );

    let mut clean = true;
    for setting in settings::dropped(config) {
        writeln!(out, "# {setting}")?;
        writeln!(err, "note: {setting}")?;
    }
    for (place, entry) in policies {
        let Entry {
            mut spec,
            secret,
            mut notes,
            mut problems,
        } = entry;
        let policy_name = names.fresh(&spec);
        let (secret_name, new) = secrets.name(&policy_name, secret);
        spec["target"]["credentials"] = json!({"secretRef": {"name": secret_name}});
        let policy = object(
            "onespace.dev/v1alpha1",
            "SyncPolicy",
            &policy_name,
            namespace,
            "spec",
            &spec,
        );

        match admission
            .decode(&policy, None)
            .and_then(|policy| validate(&policy))
        {
            Ok(_) => {}
            Err(findings) => problems.extend(findings.iter().map(ToString::to_string)),
        }
        writeln!(out, "---\n# {place}")?;
        notes.sort();
        for note in notes {
            writeln!(out, "# {}", one_line(&note))?;
            writeln!(err, "note: {place}: {note}")?;
        }
        for problem in problems {
            clean = false;
            writeln!(out, "# CORRECT THIS: {}", one_line(&problem))?;
            writeln!(err, "{place}: {problem}")?;
        }
        write!(out, "{}", serde_yaml::to_string(&policy)?)?;
        if let Some(data) = new {
            let secret = object("v1", "Secret", &secret_name, namespace, "stringData", &data);
            write!(out, "---\n{}", serde_yaml::to_string(&secret)?)?;
        }
    }
    Ok(clean)
}

fn object(
    version: &str,
    kind: &str,
    name: &str,
    namespace: Option<&str>,
    field: &str,
    content: &Value,
) -> Value {
    let mut object = json!({"apiVersion": version, "kind": kind, "metadata": {"name": name}, field: content});
    if let Some(namespace) = namespace {
        object["metadata"]["namespace"] = json!(namespace);
    }
    object
}

/// A comment ends with its line, whatever a message quotes.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Names of resources, made of account and container.
#[derive(Default)]
struct Names(BTreeMap<String, u32>);

impl Names {
    fn fresh(&mut self, spec: &Value) -> String {
        let text = |pointer: &str| spec.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let container = match text("/source/container") {
            "/*" => "all",
            name => name,
        };
        let mode = if text("/mode") == "Sync" {
            ""
        } else {
            text("/mode")
        };
        let wanted = format!("{mode} {} {container}", text("/source/account")).to_lowercase();
        let parts = wanted
            .split(|c: char| !c.is_ascii_alphanumeric())
            .filter(|part| !part.is_empty());
        let mut name = parts.collect::<Vec<_>>().join("-");
        // Room for a number and for the Secret's ending.
        name.truncate(200);
        let name = name.trim_end_matches('-').to_owned();
        let count = self.0.entry(name.clone()).or_default();
        *count += 1;
        if *count == 1 {
            name
        } else {
            format!("{name}-{count}")
        }
    }
}

/// Secrets, one for each distinct set of credentials.
#[derive(Default)]
struct Secrets(Vec<(Value, String)>);

impl Secrets {
    /// The name of the Secret with this content, and the content if it was not there before.
    fn name(&mut self, policy: &str, data: Value) -> (String, Option<Value>) {
        if let Some((_, name)) = self.0.iter().find(|(known, _)| *known == data) {
            return (name.clone(), None);
        }
        let name = format!("{policy}-keys");
        self.0.push((data.clone(), name.clone()));
        (name, Some(data))
    }
}
