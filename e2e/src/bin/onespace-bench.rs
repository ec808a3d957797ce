//! Measures the operator and the way of a change to the agents: `make bench`. What does not depend on the machine, writes and
//! memory, must be as promised; times are shown, with the machine's load beside them.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use http::Request;
use kube::Client;
use onespace_e2e::followed::Followed;
use onespace_e2e::kube::cluster::{Cluster as Nodes, has_condition, inside};
use onespace_e2e::operator::many::{self, Resident, Writes};
use onespace_e2e::operator::{Cluster, NAMESPACE, Operator};
use onespace_e2e::site::{NODES, Site};
use onespace_e2e::swift::NO_HEADERS;
use serde_json::{Value, json};

#[derive(Debug, Parser)]
struct Options {
    /// Policies.
    #[arg(long, default_value_t = 5_000)]
    policies: usize,
    /// Changes that are timed while it is quiet.
    #[arg(long, default_value_t = 100)]
    changes: usize,
    /// The operator at an API server without nodes.
    #[arg(long)]
    alone: bool,
    /// Agents on three nodes.
    #[arg(long)]
    nodes: bool,
}

/// What the operator may need, in KiB.
const MOST_MEMORY: u64 = 64 << 10;

/// How long anything may take.
const DEADLINE: Duration = Duration::from_secs(600);

/// Between two changes while it is quiet: the operator's half second and the agents' have passed, whatever their phase.
const PAUSE: Duration = Duration::from_millis(1_317);

fn main() -> ExitCode {
    let options = Options::parse();
    inside(|| {
        let runtime = tokio::runtime::Runtime::new().context("no runtime");
        let measured = runtime.and_then(|runtime| runtime.block_on(measure(&options)));
        match measured {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("bench: error: {error:#}");
                ExitCode::FAILURE
            }
        }
    })
}

async fn measure(options: &Options) -> Result<()> {
    let both = options.alone == options.nodes;
    if options.alone || both {
        operator_alone(options.policies).await?;
    }
    if options.nodes || both {
        agents_on_nodes(options).await?;
    }
    Ok(())
}

/// The machine's load, which is to be read with every figure.
fn load() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split_whitespace().next().unwrap_or("?").to_owned();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("load {load} on {cores} cores")
}

fn title(text: &str) {
    println!("\n== {text} ({})", load());
}

fn mebibytes(kib: u64) -> String {
    format!("{}.{} MiB", kib / 1024, kib % 1024 * 10 / 1024)
}

/// Waits until this many is reached; returns when it was.
async fn until(what: &str, number: impl AsyncFn() -> Result<f64>, least: usize) -> Result<Instant> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if number().await? >= least as f64 {
            return Ok(Instant::now());
        }
        ensure!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn until_accepted(operator: &Operator, policies: usize) -> Result<Instant> {
    let metric = r#"onespace_operator_policies{reason="Accepted"}"#;
    until("accepted", async || operator.metric(metric).await, policies).await
}

async fn operator_alone(policies: usize) -> Result<()> {
    let cluster = Cluster::start().await?;
    let mut operator = cluster.operator("bench", &[])?;
    operator.until_leader().await?;
    title(&format!("{policies} policies, from nothing"));
    cluster.apply(&many::secret()).await?;
    let begun = Instant::now();
    many::create(&cluster.kubernetes.client(), 0..policies).await?;
    let last = Instant::now();
    let accepted = until_accepted(&operator, policies).await?;
    let told = until(
        "told",
        async || {
            operator
                .metric(r#"onespace_operator_status_writes_total{outcome="written"}"#)
                .await
        },
        policies,
    )
    .await?;
    println!("applied within                    {:.1?}", last - begun);
    println!("in the files, after the last apply {:.1?}", accepted - last);
    println!("told, after the last apply         {:.1?}", told - last);
    println!("afterwards                         {}", load());
    let writes = Writes::of(&cluster.kubernetes.audit()?)?;
    let closest = writes
        .closest
        .as_ref()
        .map_or(f64::INFINITY, |(seconds, _)| *seconds);
    println!(
        "writes                             {} of files, one file at most every {closest:.2} s",
        writes.files
    );
    println!(
        "                                   {} of statuses",
        writes.statuses.values().sum::<usize>()
    );
    writes.check(policies)?;
    memory(operator.pid())?;
    operator.stop().await?;

    title("The same, as a new leader finds it");
    let mut operator = cluster.operator("again", &[])?;
    let begun = Instant::now();
    operator.until_leader().await?;
    let accepted = until_accepted(&operator, policies).await?;
    println!("first round done after             {:.1?}", accepted - begun);
    memory(operator.pid())?;
    operator.stop().await
}

fn memory(pid: u32) -> Result<()> {
    let Resident { peak, now } = Resident::of(pid)?;
    println!(
        "memory of the operator             {} at most, {} now",
        mebibytes(peak),
        mebibytes(now)
    );
    ensure!(peak < MOST_MEMORY, "that is more than {}", mebibytes(MOST_MEMORY));
    Ok(())
}

async fn agents_on_nodes(options: &Options) -> Result<()> {
    let nodes = Arc::new(Nodes::start(NODES).await?);
    let site = Site::start(nodes.clone()).await?;
    let user = site.swift.user().await?;
    user.create_container("bench", NO_HEADERS).await?;
    site.install(&["--set", "operator.replicas=1"]).await?;
    nodes.apply_text(&site.policy("bench")).await?;
    nodes
        .until("the policy is ready", async || {
            let policy = nodes.get(&["syncpol", "-n", NAMESPACE, "bench"]).await?;
            Ok(has_condition(&policy, "Ready").then_some(()))
        })
        .await?;
    let client = nodes.client();
    let followed = Followed::start(&client, "bench", NODES).await?;

    title("While it is quiet, beside no other policy");
    quiet(&client, &followed, 0..options.changes).await?;

    title(&format!("While {} policies are being applied", options.policies));
    nodes.apply(&many::secret()).await?;
    let list = many::list(0..options.policies).to_string();
    let applied = {
        let nodes = nodes.clone();
        tokio::spawn(async move { nodes.apply_by_hand(&list).await })
    };
    let begun = Instant::now();
    let mut times = Vec::new();
    while !applied.is_finished() {
        let number = options.changes + times.len();
        times.push(change(&client, &followed, number).await?);
        // Agents have the last one because the operator has just ended a round: the next change comes at any moment of one.
        tokio::time::sleep(Duration::from_millis(150 * (number as u64 % 8))).await;
    }
    let changed = options.changes + times.len();
    applied.await??;
    println!("applied within                     {:.1?}", begun.elapsed());
    println!("afterwards                         {}", load());
    show(&mut times);
    let last = Instant::now();
    // No container of theirs is there, so none becomes Ready. The question is a load itself, so it is put seldom.
    while told(&client).await? < options.policies {
        ensure!(
            last.elapsed() < DEADLINE,
            "not within {DEADLINE:?}: every status with all agents"
        );
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    let writes = Writes::of(&nodes.audit()?)?;
    println!(
        "writes                             {} of files, {} of statuses",
        writes.files,
        writes.statuses.values().sum::<usize>()
    );
    println!(
        "all in status as every agent has them, {:.1?} after the last apply ({})",
        last.elapsed(),
        load()
    );
    title(&format!(
        "While it is quiet, beside {} policies",
        options.policies
    ));
    quiet(&client, &followed, changed..changed + options.changes).await?;
    memory(pid_of("onespace-operator")?)?;
    for (pid, name) in pids_of("onespace-node-agent")?.into_iter().zip(1..) {
        let Resident { peak, now } = Resident::of(pid)?;
        println!(
            "memory of agent {name}                  {} at most, {} now",
            mebibytes(peak),
            mebibytes(now)
        );
    }
    Ok(())
}

/// Changes, one at a time.
async fn quiet(client: &Client, followed: &Followed, numbers: std::ops::Range<usize>) -> Result<()> {
    let mut times = Vec::new();
    for number in numbers {
        times.push(change(client, followed, number).await?);
        tokio::time::sleep(PAUSE).await;
    }
    show(&mut times);
    Ok(())
}

/// Changes the policy, and waits until every agent has it.
async fn change(client: &Client, followed: &Followed, number: usize) -> Result<Duration> {
    let patch = json!({"spec": {"copyAfter": format!("{number}s")}});
    let path = format!("/apis/onespace.dev/v1alpha1/namespaces/{NAMESPACE}/syncpolicies/bench");
    let request = Request::patch(path)
        .header("content-type", "application/merge-patch+json")
        .body(patch.to_string().into_bytes())?;
    let begun = Instant::now();
    let changed: Value = client.request(request).await?;
    let generation = changed["metadata"]["generation"]
        .as_i64()
        .context("no generation")?;
    followed
        .until(generation, begun + DEADLINE)
        .await
        .map(|at| at - begun)
}

/// Policies of which status says that every agent has them. The text is searched, not parsed: it is tens of megabytes.
async fn told(client: &Client) -> Result<usize> {
    let path = format!("/apis/onespace.dev/v1alpha1/namespaces/{NAMESPACE}/syncpolicies?resourceVersion=0");
    let list = client.request_text(Request::get(path).body(Vec::new())?).await?;
    Ok(list.matches(&format!(r#""current":{NODES}"#)).count())
}

fn show(times: &mut [Duration]) {
    times.sort();
    let at = |share: usize| times.get((times.len() * share / 100).min(times.len().saturating_sub(1)));
    let named: BTreeMap<&str, _> = BTreeMap::from([
        ("p50", at(50)),
        ("p90", at(90)),
        ("p99", at(99)),
        ("worst", times.last()),
    ]);
    let texts: Vec<String> = named
        .into_iter()
        .filter_map(|(name, time)| Some(format!("{name} {:.2?}", time?)))
        .collect();
    println!(
        "{} changes, until in every agent   {}",
        times.len(),
        texts.join(", ")
    );
}

fn pids_of(program: &str) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let exe: PathBuf = std::fs::read_link(entry.path().join("exe")).unwrap_or_default();
        if exe.file_name().is_some_and(|name| name == program) {
            found.push(pid);
        }
    }
    Ok(found)
}

fn pid_of(program: &str) -> Result<u32> {
    pids_of(program)?
        .into_iter()
        .next()
        .with_context(|| format!("{program} does not run"))
}
