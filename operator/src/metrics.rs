//! Prometheus metrics. Labels are closed lists; never the name of an object.

use prometheus::{
    Encoder as _, Histogram, HistogramOpts, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

/// All metrics of the operator.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    /// 1 while this replica leads.
    pub leader: IntGauge,
    /// Policies by the reason of their condition Accepted.
    pub policies: IntGaugeVec,
    /// Policies by a condition and its status.
    pub conditions: IntGaugeVec,
    /// Files written, by kind.
    pub writes: IntCounterVec,
    /// Statuses that were to be written, by outcome.
    pub status_writes: IntCounterVec,
    /// Watches that were begun anew.
    pub watch_errors: IntCounterVec,
    /// Watched namespaces that cannot be read.
    pub unreadable: IntGauge,
    /// Rounds, by outcome.
    pub rounds: IntCounterVec,
    /// Time of a round.
    pub round_seconds: Histogram,
    /// Agents, by whether they answer and run the newest files.
    pub agents: IntGaugeVec,
    /// When the certificates of a Secret are due to be made anew.
    pub renewals: IntGaugeVec,
}

/// What becomes of a status that is to be written.
pub const STATUS_OUTCOMES: [&str; 4] = ["written", "gone", "refused", "failed"];

/// What becomes of a round.
const ROUND_OUTCOMES: [&str; 2] = ["done", "failed"];

/// Kinds of files.
const FILES: [&str; 3] = ["credentials", "mappings", "index"];

/// Kinds that are watched.
const WATCHED: [&str; 6] = [
    "SyncPolicy",
    "AccountGrant",
    "Namespace",
    "Secret",
    "ConfigMap",
    "Pod",
];

impl Metrics {
    /// Metrics at zero.
    ///
    /// # Errors
    /// Two metrics of one name: a mistake in this file, shown by its test.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let gauges = |name: &str, help: &str, labels: &[&str]| -> Result<IntGaugeVec, prometheus::Error> {
            let gauges = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(gauges.clone()))?;
            Ok(gauges)
        };
        // All of them from the start: the first failure is an increase only where there was a zero.
        let counters = |name: &str, help: &str, label: &str, values: &[&str]| {
            let counters = IntCounterVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(counters.clone()))?;
            for value in values {
                counters.with_label_values(&[value]);
            }
            Ok::<_, prometheus::Error>(counters)
        };
        let leader = IntGauge::new("onespace_operator_leader", "1 while this replica leads.")?;
        registry.register(Box::new(leader.clone()))?;
        let unreadable = IntGauge::new(
            "onespace_operator_unreadable_namespaces",
            "Watched namespaces whose policies, Secrets or ConfigMaps the API server refuses to show: changes there have no effect.",
        )?;
        registry.register(Box::new(unreadable.clone()))?;
        let round_seconds = Histogram::with_opts(HistogramOpts::new(
            "onespace_operator_round_seconds",
            "Time of a round, up to the last file written.",
        ))?;
        registry.register(Box::new(round_seconds.clone()))?;
        Ok(Self {
            leader,
            unreadable,
            round_seconds,
            policies: gauges(
                "onespace_operator_policies",
                "Policies, by the reason of their condition Accepted.",
                &["reason"],
            )?,
            conditions: gauges(
                "onespace_operator_policy_conditions",
                "Policies, by a condition and its status.",
                &["type", "status"],
            )?,
            writes: counters(
                "onespace_operator_file_writes_total",
                "ConfigMaps and Secrets written, by what is in them.",
                "kind",
                &FILES,
            )?,
            status_writes: counters(
                "onespace_operator_status_writes_total",
                "Statuses that were to be written: written; the policy was gone; refused for good; failed and tried again.",
                "outcome",
                &STATUS_OUTCOMES,
            )?,
            watch_errors: counters(
                "onespace_operator_watch_errors_total",
                "Watches that broke and were begun anew.",
                "kind",
                &WATCHED,
            )?,
            rounds: counters(
                "onespace_operator_rounds_total",
                "Rounds of the loop that writes files.",
                "outcome",
                &ROUND_OUTCOMES,
            )?,
            agents: gauges(
                "onespace_operator_agents",
                "Agents as the leader hears of them: current; behind = they answer, and do not run the newest files; silent.",
                &["state"],
            )?,
            renewals: gauges(
                "onespace_operator_certificate_renewal_timestamp_seconds",
                "When the leader is to make the certificates in this Secret anew; they end 30 days later, or more.",
                &["secret"],
            )?,
            registry,
        })
    }

    /// Prometheus' text format.
    ///
    /// # Errors
    /// [`prometheus::Error`]: none is known.
    pub fn render(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use onespace_stores::metrics_reference::{section, section_of};

    use super::*;

    #[test]
    fn every_metric_is_in_the_reference() {
        let metrics = Metrics::new().unwrap();
        metrics.policies.with_label_values(&["Accepted"]).set(1);
        metrics.agents.with_label_values(&["current"]).set(1);
        metrics.conditions.with_label_values(&["Ready", "True"]).set(1);
        metrics.renewals.with_label_values(&[crate::pki::AGENTS]).set(1);
        let text = String::from_utf8(metrics.render().unwrap()).unwrap();
        let found = section("Operator", &text);
        let written = include_str!("../../docs/metrics.md");
        assert_eq!(
            found,
            section_of(written, "Operator"),
            "docs/metrics.md must have:\n{found}"
        );
        assert_eq!(found.matches("| `onespace_operator_").count(), 11, "{found}");
    }

    #[test]
    fn what_can_fail_is_counted_from_zero() {
        let text = String::from_utf8(Metrics::new().unwrap().render().unwrap()).unwrap();
        for zero in [
            r#"onespace_operator_rounds_total{outcome="failed"} 0"#,
            r#"onespace_operator_status_writes_total{outcome="failed"} 0"#,
            r#"onespace_operator_watch_errors_total{kind="SyncPolicy"} 0"#,
        ] {
            assert!(text.contains(zero), "{zero}: {text}");
        }
    }

    #[test]
    fn a_leader_can_be_told_from_its_metrics() {
        let metrics = Metrics::new().unwrap();
        metrics.leader.set(1);
        metrics.writes.with_label_values(&["index"]).inc();
        let text = String::from_utf8(metrics.render().unwrap()).unwrap();
        assert!(text.contains("onespace_operator_leader 1"), "{text}");
        assert!(
            text.contains(r#"onespace_operator_file_writes_total{kind="index"} 1"#),
            "{text}"
        );
    }
}
