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
    /// Files written, by kind.
    pub writes: IntCounterVec,
    /// Statuses written, by outcome.
    pub status_writes: IntCounterVec,
    /// Watches that were begun anew.
    pub watch_errors: IntCounterVec,
    /// Rounds, by outcome.
    pub rounds: IntCounterVec,
    /// Time of a round.
    pub round_seconds: Histogram,
    /// Agents, by whether they answer.
    pub agents: IntGaugeVec,
}

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
        let counters = |name: &str, help: &str, label: &str| -> Result<IntCounterVec, prometheus::Error> {
            let counters = IntCounterVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(counters.clone()))?;
            Ok(counters)
        };
        let leader = IntGauge::new("onespace_operator_leader", "1 while this replica leads.")?;
        registry.register(Box::new(leader.clone()))?;
        let round_seconds = Histogram::with_opts(HistogramOpts::new(
            "onespace_operator_round_seconds",
            "From a change to the last file written.",
        ))?;
        registry.register(Box::new(round_seconds.clone()))?;
        Ok(Self {
            leader,
            round_seconds,
            policies: gauges(
                "onespace_operator_policies",
                "Policies, by the reason of their condition Accepted.",
                &["reason"],
            )?,
            writes: counters("onespace_operator_file_writes_total", "Files written.", "kind")?,
            status_writes: counters(
                "onespace_operator_status_writes_total",
                "Statuses written.",
                "outcome",
            )?,
            watch_errors: counters(
                "onespace_operator_watch_errors_total",
                "Watches begun anew.",
                "kind",
            )?,
            rounds: counters(
                "onespace_operator_rounds_total",
                "Rounds of the loop that writes files.",
                "outcome",
            )?,
            agents: gauges(
                "onespace_operator_agents",
                "Agents, by whether they answer.",
                &["state"],
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
    use super::*;

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
