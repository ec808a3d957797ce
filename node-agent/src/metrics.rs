//! Prometheus metrics, made from the same reports that `/status` shows. Labels are the policy's namespace and name
//! and closed lists of reasons; never a container or an object.

use onespace_core::report::{ConfigReport, MappingReport, RunState};
use prometheus::{Encoder, GaugeVec, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder};

const POLICY: &[&str] = &["namespace", "name"];

/// Renders the reports in Prometheus' text format.
///
/// # Errors
/// [`prometheus::Error`] when two metrics would have one name: a mistake in this file, shown by its test.
pub fn render(
    loaded: bool,
    config: &ConfigReport,
    reports: &[MappingReport],
) -> Result<Vec<u8>, prometheus::Error> {
    let registry = Registry::new();
    let gauge = |name: &str, help: &str, labels: &[&str]| -> Result<IntGaugeVec, prometheus::Error> {
        let gauge = IntGaugeVec::new(Opts::new(name, help), labels)?;
        registry.register(Box::new(gauge.clone()))?;
        Ok(gauge)
    };
    let counter = |name: &str, help: &str| -> Result<IntCounterVec, prometheus::Error> {
        let counter = IntCounterVec::new(Opts::new(name, help), POLICY)?;
        registry.register(Box::new(counter.clone()))?;
        Ok(counter)
    };
    gauge("onespace_config_loaded", "1 when a set of mappings runs.", &[])?
        .with_label_values::<&str>(&[])
        .set(loaded.into());
    gauge(
        "onespace_config_broken",
        "1 when newer mapping files could not be loaded.",
        &[],
    )?
    .with_label_values::<&str>(&[])
    .set(config.error.is_some().into());
    let refused = gauge(
        "onespace_config_refused",
        "Mappings that this agent refuses, by reason.",
        &["reason"],
    )?;
    for mapping in &config.refused {
        refused.with_label_values(&[mapping.reason.as_str()]).inc();
    }
    let state = gauge(
        "onespace_mapping_state",
        "1 for the state that the mapping is in.",
        &["namespace", "name", "state"],
    )?;
    let paused = gauge(
        "onespace_mapping_paused",
        "1 while the mapping is paused, by reason.",
        &["namespace", "name", "reason"],
    )?;
    let mapping_refused = gauge(
        "onespace_mapping_refused",
        "1 while the mapping is refused, by reason.",
        &["namespace", "name", "reason"],
    )?;
    let deletes_held = gauge(
        "onespace_deletes_held",
        "Deletes of the batch that waits for a person, by reason.",
        &["namespace", "name", "reason"],
    )?;
    let bytes_limit = gauge(
        "onespace_limit_bytes_per_second",
        "Bytes a second that the policy allows now; absent = no limit.",
        POLICY,
    )?;
    let requests_limit = gauge(
        "onespace_limit_requests_per_second",
        "Requests a second that the policy allows now; absent = no limit.",
        POLICY,
    )?;
    let window = gauge(
        "onespace_limit_window",
        "Which window of the policy's limits is in force, counted from 1; 0 = none of them.",
        POLICY,
    )?;
    let pending = gauge("onespace_pending_rows", "Rows that are not done.", POLICY)?;
    let oldest = GaugeVec::new(
        Opts::new(
            "onespace_oldest_pending_timestamp_seconds",
            "Time of the oldest row that is not done; absent = none.",
        ),
        POLICY,
    )?;
    registry.register(Box::new(oldest.clone()))?;
    let held = gauge("onespace_held_rows", "Rows that wait in the held set.", POLICY)?;
    let databases = gauge(
        "onespace_databases",
        "Container databases that are followed.",
        POLICY,
    )?;
    let unreadable = gauge(
        "onespace_databases_unreadable",
        "Container databases that cannot be read.",
        POLICY,
    )?;
    let first_pass = gauge(
        "onespace_initial_pass_complete",
        "1 when every database's first pass is complete.",
        POLICY,
    )?;
    let reachable = gauge(
        "onespace_remote_reachable",
        "1 when the remote answers, or nothing is asked of it.",
        POLICY,
    )?;
    let objects = counter("onespace_objects_total", "Objects brought in step.")?;
    let bytes = counter("onespace_sent_bytes_total", "Bytes sent to the remote.")?;
    let deletes = counter("onespace_deletes_total", "Deletes carried out at the remote.")?;
    let good = gauge(
        "onespace_objective_good_rows",
        "Rows of the objective's window that were in step in time.",
        POLICY,
    )?;
    let missed = gauge(
        "onespace_objective_missed_rows",
        "Rows of the objective's window that were not, or wait and are late or held.",
        POLICY,
    )?;
    let unverified = gauge(
        "onespace_verify_rows",
        "Rows of other nodes that are to be verified; most of them not yet.",
        POLICY,
    )?;
    let verified = counter(
        "onespace_verified_total",
        "Rows of other nodes found or put in step.",
    )?;
    let repaired = counter(
        "onespace_repaired_total",
        "Rows of other nodes that needed a write.",
    )?;
    for report in reports {
        let Some(policy) = &report.policy else { continue };
        let labels = [policy.namespace.as_str(), policy.name.as_str()];
        let with = |last: &'static str| [labels[0], labels[1], last];
        for (known, word) in STATES {
            state
                .with_label_values(&with(word))
                .set((*known == report.state).into());
        }
        if let (RunState::Paused, Some(reason)) = (report.state, &report.reason) {
            paused.with_label_values(&[labels[0], labels[1], reason]).set(1);
        }
        if let (RunState::Refused, Some(reason)) = (report.state, &report.reason) {
            mapping_refused
                .with_label_values(&[labels[0], labels[1], reason])
                .set(1);
        }
        if let Some(batch) = &report.held_deletes {
            deletes_held
                .with_label_values(&[labels[0], labels[1], &batch.reason])
                .set(signed(batch.rows));
        }
        if let Some(limits) = &report.limits {
            if let Some(rate) = limits.bytes_per_second {
                bytes_limit.with_label_values(&labels).set(signed(rate));
            }
            if let Some(rate) = limits.requests_per_second {
                requests_limit.with_label_values(&labels).set(signed(rate));
            }
            let number = limits.window.map_or(0, |index| index as u64 + 1);
            window.with_label_values(&labels).set(signed(number));
        }
        pending
            .with_label_values(&labels)
            .set(signed(report.pending.rows));
        if let Some(time) = report
            .pending
            .oldest
            .as_deref()
            .and_then(onespace_core::report::unix_seconds)
        {
            #[allow(
                clippy::cast_precision_loss,
                reason = "seconds since 1970 are exact in a double"
            )]
            oldest.with_label_values(&labels).set(time as f64);
        }
        held.with_label_values(&labels).set(signed(report.held.rows));
        databases
            .with_label_values(&labels)
            .set(signed(report.databases.open));
        unreadable
            .with_label_values(&labels)
            .set(signed(report.databases.unreadable));
        first_pass
            .with_label_values(&labels)
            .set(report.initial_pass_complete.into());
        reachable
            .with_label_values(&labels)
            .set(report.remote.reachable.into());
        objects.with_label_values(&labels).inc_by(report.totals.objects);
        bytes.with_label_values(&labels).inc_by(report.totals.bytes);
        deletes.with_label_values(&labels).inc_by(report.totals.deletes);
        if let Some(objective) = &report.objective {
            good.with_label_values(&labels).set(signed(objective.rows.good));
            missed
                .with_label_values(&labels)
                .set(signed(objective.rows.missed));
        }
        unverified
            .with_label_values(&labels)
            .set(signed(report.verify.rows));
        verified.with_label_values(&labels).inc_by(report.totals.verified);
        repaired.with_label_values(&labels).inc_by(report.totals.repaired);
    }
    let mut text = Vec::new();
    TextEncoder::new().encode(&registry.gather(), &mut text)?;
    Ok(text)
}

const STATES: &[(RunState, &str)] = &[
    (RunState::Running, "Running"),
    (RunState::Suspended, "Suspended"),
    (RunState::Paused, "Paused"),
    (RunState::Refused, "Refused"),
    (RunState::Removing, "Removing"),
];

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use onespace_core::mapping::PolicyRef;
    use onespace_stores::metrics_reference::{section, section_of};

    fn a_paused_report() -> MappingReport {
        MappingReport {
            policy: Some(PolicyRef {
                namespace: "swift".into(),
                name: "photos".into(),
                generation: 1,
            }),
            state: RunState::Paused,
            reason: Some("NoSuchBucket".into()),
            pending: onespace_core::report::Pending {
                rows: 7,
                exact: true,
                oldest: Some("2026-01-02T03:04:05Z".into()),
            },
            held_deletes: Some(onespace_core::report::HeldDeletes {
                id: "b".into(),
                rows: 3,
                reason: "MassDelete".into(),
            }),
            limits: Some(onespace_core::report::LimitsReport {
                bytes_per_second: Some(1 << 20),
                requests_per_second: Some(20),
                window: Some(1),
            }),
            objective: Some(onespace_core::report::ObjectiveReport {
                rows: onespace_core::objective::Counts { good: 99, missed: 1 },
                since: None,
            }),
            ..MappingReport::default()
        }
    }

    /// Everything that a report can hold.
    fn full_reports() -> [MappingReport; 2] {
        let refused = MappingReport {
            state: RunState::Refused,
            reason: Some("ModeChanged".into()),
            ..a_paused_report()
        };
        [a_paused_report(), refused]
    }

    fn a_config() -> ConfigReport {
        ConfigReport {
            refused: vec![onespace_core::report::Refused {
                id: "1".into(),
                reason: "FeatureUnknown".into(),
                message: String::new(),
            }],
            ..ConfigReport::default()
        }
    }

    #[test]
    fn every_metric_is_in_the_reference_with_a_name_and_labels_as_prometheus_wants_them() {
        let text = String::from_utf8(render(true, &a_config(), &full_reports()).unwrap()).unwrap();
        let found = section("Node agent", &text);
        let written = include_str!("../../docs/metrics.md");
        assert_eq!(
            found,
            section_of(written, "Node agent"),
            "docs/metrics.md must have:\n{found}"
        );
        for row in found.lines().filter(|line| line.starts_with("| `")) {
            let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
            let [name, kind, labels, help] = cells[..] else {
                panic!("{row}")
            };
            let name = name.trim_matches('`');
            assert!(name.starts_with("onespace_"), "{row}");
            assert_eq!(name.ends_with("_total"), kind == "counter", "{row}");
            assert!(!help.is_empty(), "{row}");
            for label in labels.split(", ").filter(|label| !label.is_empty()) {
                let label = label.trim_matches('`');
                assert!(
                    ["namespace", "name", "state", "reason"].contains(&label),
                    "{row}: it is not bounded"
                );
            }
        }
    }

    #[test]
    fn a_paused_mapping_and_its_lag_can_be_alerted_on() {
        let report = a_paused_report();
        let text = String::from_utf8(render(true, &a_config(), &[report]).unwrap()).unwrap();
        for line in [
            r#"onespace_mapping_paused{name="photos",namespace="swift",reason="NoSuchBucket"} 1"#,
            r#"onespace_pending_rows{name="photos",namespace="swift"} 7"#,
            r#"onespace_objective_good_rows{name="photos",namespace="swift"} 99"#,
            r#"onespace_objective_missed_rows{name="photos",namespace="swift"} 1"#,
            r#"onespace_deletes_held{name="photos",namespace="swift",reason="MassDelete"} 3"#,
            r#"onespace_limit_window{name="photos",namespace="swift"} 2"#,
            r#"onespace_config_refused{reason="FeatureUnknown"} 1"#,
            r#"onespace_oldest_pending_timestamp_seconds{name="photos",namespace="swift"} 1767323045"#,
        ] {
            assert!(text.contains(line), "{text}");
        }
    }
}
