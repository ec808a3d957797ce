//! The Helm chart as tests see it: what real Helm renders.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize as _;
use serde_json::Value;

use crate::tools::{tool, workspace};

/// The namespace that it is rendered for.
pub const NAMESPACE: &str = "onespace";

/// The chart's folder.
#[must_use]
pub fn folder() -> PathBuf {
    workspace().join("charts/onespace")
}

/// The files with values that the chart is tested with.
///
/// # Errors
/// They are not there.
pub fn values() -> Result<Vec<PathBuf>> {
    let files = std::fs::read_dir(folder().join("ci"))?;
    let mut files = files
        .map(|file| Ok(file?.path()))
        .collect::<Result<Vec<PathBuf>>>()?;
    files.sort();
    ensure!(files.len() >= 3, "the chart's ci folder has lost its files");
    Ok(files)
}

/// Runs a program and returns how it ended, with what it said.
///
/// # Errors
/// It cannot be run.
pub fn run(program: &Path, arguments: &[&str], input: &str) -> Result<Output> {
    let mut child = Command::new(program)
        .args(arguments)
        .env("HOME", std::env::temp_dir())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| program.display().to_string())?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    let input = input.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output()?;
    let _ = writer.join();
    Ok(output)
}

/// What helm prints.
///
/// # Errors
/// It failed; the message is its own.
pub fn helm(arguments: &[&str]) -> Result<String> {
    let output = run(&tool("bin/helm")?, arguments, "")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "helm {}: {said}{}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(said)
}

/// `helm template` with these arguments.
///
/// # Errors
/// Helm's.
pub fn render(more: &[&str]) -> Result<String> {
    let chart = folder().display().to_string();
    let all = [&["template", "onespace", &chart, "--namespace", NAMESPACE], more].concat();
    helm(&all)
}

/// The objects that are rendered with the values of this name in the chart's ci folder, and further arguments.
///
/// # Errors
/// Helm's.
pub fn rendered(values: &str, more: &[&str]) -> Result<Vec<Value>> {
    let values = folder().join(format!("ci/{values}.yaml")).display().to_string();
    objects(&render(&[&["-f", &values], more].concat())?)
}

/// All objects of a text.
///
/// # Errors
/// It is no YAML.
pub fn objects(yaml: &str) -> Result<Vec<Value>> {
    let documents =
        serde_yaml::Deserializer::from_str(yaml).map(|document| Ok(Value::deserialize(document)?));
    let objects: Result<Vec<Value>> = documents.collect();
    Ok(objects?.into_iter().filter(|object| !object.is_null()).collect())
}

/// The object of this kind and name.
///
/// # Errors
/// There is none.
pub fn named<'a>(objects: &'a [Value], kind: &str, name: &str) -> Result<&'a Value> {
    let found = objects
        .iter()
        .find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    found.with_context(|| format!("no {kind} {name}"))
}

/// All containers of a pod's spec, the sidecar among them.
#[must_use]
pub fn containers(object: &Value) -> Vec<&Value> {
    let spec = object.pointer("/spec/template/spec").unwrap_or(&object["spec"]);
    let lists = ["initContainers", "containers"].map(|list| spec[list].as_array());
    lists.into_iter().flatten().flatten().collect()
}
