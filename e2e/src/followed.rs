//! Agents in pods, asked many times a second with a certificate, for the moment at which each has a policy's change.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::rt::TokioExecutor;
use kube::Client;
use onespace_core::report::Report;
use onespace_stores::mutual_tls::{AgentConnector, Identity, agent_connector};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair,
};
use serde_json::Value;
use tokio::sync::watch;

use crate::operator::NAMESPACE;

/// Between two questions. Each costs an agent of thousands of mappings some tenths of a millisecond.
const EVERY: Duration = Duration::from_millis(50);

/// An answer must be there by then.
const PATIENCE: Duration = Duration::from_secs(20);

/// A policy at several agents.
pub struct Followed {
    /// The generation that each agent has, and since when.
    agents: Vec<watch::Receiver<(i64, Instant)>>,
    tasks: tokio::task::JoinSet<()>,
}

impl Followed {
    /// Asks the agents of all pods from now on.
    ///
    /// # Errors
    /// There are not as many; no certificate can be made.
    pub async fn start(client: &Client, policy: &str, count: usize) -> Result<Self> {
        let path = format!(
            "/api/v1/namespaces/{NAMESPACE}/pods?labelSelector=app.kubernetes.io/component=node-agent"
        );
        let pods: Value = client.request(Request::get(path).body(Vec::new())?).await?;
        let pods = pods["items"].as_array().into_iter().flatten();
        let addresses: Vec<&str> = pods
            .filter_map(|pod| pod.pointer("/status/podIP").and_then(Value::as_str))
            .collect();
        ensure!(
            addresses.len() == count,
            "{} agents, not {count}",
            addresses.len()
        );
        let config = identity(client).await?.client()?;
        let mut tasks = tokio::task::JoinSet::new();
        let mut agents = Vec::new();
        for address in addresses {
            let connector = agent_connector(config.clone(), PATIENCE)?;
            let http = HttpClient::builder(TokioExecutor::new()).build(connector);
            let (sender, receiver) = watch::channel((0, Instant::now()));
            tasks.spawn(follow(
                http,
                format!("https://{address}:9181/status"),
                policy.to_owned(),
                sender,
            ));
            agents.push(receiver);
        }
        Ok(Self { agents, tasks })
    }

    /// Waits until every agent has this generation. Returns when the last one had it.
    ///
    /// # Errors
    /// Time is up.
    pub async fn until(&self, generation: i64, deadline: Instant) -> Result<Instant> {
        ensure!(!self.tasks.is_empty(), "no agent is asked");
        let mut last = None;
        for agent in &self.agents {
            let mut agent = agent.clone();
            let there = agent.wait_for(|(has, _)| *has >= generation);
            let there = tokio::time::timeout_at(deadline.into(), there).await;
            let (_, at) = *there.context("an agent never had the change")??;
            last = last.max(Some(at));
        }
        last.context("no agent is asked")
    }
}

/// Asks for what changed since it asked last.
async fn follow(
    http: HttpClient<AgentConnector, Empty<Bytes>>,
    url: String,
    policy: String,
    seen: watch::Sender<(i64, Instant)>,
) {
    let mut since: Option<String> = None;
    loop {
        tokio::time::sleep(EVERY).await;
        let first = match &since {
            Some(since) => format!("{url}?since={since}"),
            None => url.clone(),
        };
        let mut next = Some(first.clone());
        let mut revision = None;
        while let Some(url) = next.take() {
            let Ok(report) = page(&http, &url).await else {
                break;
            };
            next = report.next.as_ref().map(|after| {
                let separator = if first.contains('?') { '&' } else { '?' };
                format!("{first}{separator}after={after}")
            });
            revision.get_or_insert(report.revision);
            for mapping in report.mappings {
                let generation = mapping
                    .policy
                    .filter(|of| of.name == policy)
                    .map(|of| of.generation);
                if let Some(generation) = generation.filter(|generation| *generation > seen.borrow().0) {
                    seen.send_replace((generation, Instant::now()));
                }
            }
        }
        since = revision.or(since);
    }
}

async fn page(http: &HttpClient<AgentConnector, Empty<Bytes>>, url: &str) -> Result<Report> {
    let answer = tokio::time::timeout(PATIENCE, http.get(url.parse()?)).await??;
    ensure!(answer.status().is_success(), "{url}: {}", answer.status());
    let body = tokio::time::timeout(PATIENCE, answer.into_body().collect()).await??;
    Ok(serde_json::from_slice(&body.to_bytes())?)
}

/// A client's certificate of the operator's authority.
async fn identity(client: &Client) -> Result<Identity> {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let path = format!("/api/v1/namespaces/{NAMESPACE}/secrets/onespace-status-authority");
    let secret: Value = client.request(Request::get(path).body(Vec::new())?).await?;
    let text = |name: &str| -> Result<String> {
        let value = secret["data"][name]
            .as_str()
            .with_context(|| format!("no {name}"))?;
        Ok(String::from_utf8(STANDARD.decode(value)?)?)
    };
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.distinguished_name = DistinguishedName::new();
    authority
        .distinguished_name
        .push(DnType::CommonName, "onespace status");
    let issuer = Issuer::new(authority, KeyPair::from_pem(&text("tls.key")?)?);
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec!["bench".to_owned()])?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    Ok(Identity {
        authority: text("ca.crt")?.into_bytes(),
        certificate: params.signed_by(&key, &issuer)?.pem().into_bytes(),
        key: key.serialize_pem().into_bytes(),
    })
}
