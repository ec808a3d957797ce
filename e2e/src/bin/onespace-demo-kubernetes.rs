//! Shows onespace on a real Kubernetes, step by step, with the commands of the README's quick start: `make demo-kubernetes`.
//! With `--keep` it runs until Ctrl-C.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use onespace_e2e::kube::cluster::{Cluster, enter_with, has_condition, inside};
use onespace_e2e::plugin::Plugin;
use onespace_e2e::site::{BUCKET, NAMESPACE, NODES, Site, installation};
use onespace_e2e::swift::NO_HEADERS;
use tokio::signal::ctrl_c;

#[derive(Debug, Parser)]
struct Options {
    /// Leave everything running until Ctrl-C.
    #[arg(long)]
    keep: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    inside(|| {
        let shown = tokio::runtime::Runtime::new()
            .context("no runtime")
            .and_then(|runtime| runtime.block_on(show(options.keep)));
        match shown {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("\ndemo: error: {error:#}");
                ExitCode::FAILURE
            }
        }
    })
}

fn title(text: &str) {
    println!("\n== {text}");
}

fn say(text: &str) {
    for line in text.lines() {
        println!("   {line}");
    }
}

async fn kubectl(cluster: &Cluster, command: &str) -> Result<()> {
    say(&format!("$ kubectl {command}"));
    let words: Vec<&str> = command.split(' ').collect();
    say(&cluster.kubectl(&words).await?);
    Ok(())
}

async fn show(keep: bool) -> Result<()> {
    title("A real Kubernetes with three nodes; Swift's servers on each of them; an S3 server");
    let begun = Instant::now();
    let cluster = Arc::new(Cluster::start(NODES).await?);
    say(&format!("ready after {:.1} s", begun.elapsed().as_secs_f32()));
    kubectl(&cluster, "get nodes -o wide").await?;
    let site = Site::start(cluster.clone()).await?;
    let user = site.swift.user().await?;
    user.create_container("photos", NO_HEADERS).await?;
    user.put("photos", "2026/beach.jpg", NO_HEADERS, "sand").await?;
    say(&format!(
        "Swift: AUTH_test/photos with one object; S3: {}",
        site.s3_endpoint()
    ));

    title("The chart: an operator with two replicas, an agent on every Swift node");
    let words = installation("charts/onespace", "values.yaml").join(" ");
    say(&format!("$ helm {words}"));
    site.install(&[]).await?;
    kubectl(&cluster, &format!("get pods -n {NAMESPACE} -o wide")).await?;

    say(&format!("$ helm test onespace --namespace {NAMESPACE} --logs"));
    let test = ["test", "onespace", "--namespace", NAMESPACE, "--logs"];
    say(&cluster.helm(&test).await?);

    title("A policy and its keys");
    let policy = site.policy("photos");
    let secret = policy.find("AWS_ACCESS_KEY_ID").unwrap_or(policy.len());
    say(&format!("{}...", &policy[..secret]));
    say("$ kubectl apply -f photos.yaml");
    let begun = Instant::now();
    say(&cluster.apply_text(&policy).await?);
    site.until_arrived("photos/2026/beach.jpg", "sand").await?;
    say(&format!(
        "{BUCKET}/photos/2026/beach.jpg is in S3 {:.1} s after kubectl apply",
        begun.elapsed().as_secs_f32()
    ));
    cluster
        .until("the policy is ready", async || {
            let policy = cluster.get(&["syncpol", "-n", NAMESPACE, "photos"]).await?;
            Ok(has_condition(&policy, "Ready").then_some(()))
        })
        .await?;
    kubectl(&cluster, &format!("get syncpol -n {NAMESPACE}")).await?;

    title("Another object");
    let begun = Instant::now();
    user.put("photos", "2026/hills.jpg", NO_HEADERS, "green").await?;
    site.until_arrived("photos/2026/hills.jpg", "green").await?;
    say(&format!(
        "{BUCKET}/photos/2026/hills.jpg is in S3 {:.1} s after Swift had it",
        begun.elapsed().as_secs_f32()
    ));

    title("How policies stand");
    let words = ["status", "-A"];
    say(&format!("$ kubectl onespace {}", words.join(" ")));
    let status = Plugin::new(cluster.kubeconfig())?.run(&words)?;
    ensure!(status.code == 0, "kubectl onespace status: {}", status.err);
    say(&status.out);

    if keep {
        title("It runs until Ctrl-C. In another terminal, as root:");
        say(&enter_with(&cluster.kubeconfig()));
        say("kubectl get pods -A");
        say(&format!("kubectl describe syncpol -n {NAMESPACE} photos"));
        say(&format!(
            "kubectl logs -n {NAMESPACE} deployment/onespace-operator"
        ));
        ctrl_c().await?;
        println!();
        return Ok(());
    }
    title("Uninstalled: policies stay, and so does what was copied");
    say(&format!(
        "$ helm uninstall onespace --namespace {NAMESPACE} --wait"
    ));
    let uninstall = ["uninstall", "onespace", "--namespace", NAMESPACE, "--wait"];
    cluster.helm(&uninstall).await?;
    kubectl(&cluster, &format!("get syncpol -n {NAMESPACE}")).await?;
    title("Done. Everything is removed again. KEEP=1 make demo-kubernetes leaves it running.");
    Ok(())
}
