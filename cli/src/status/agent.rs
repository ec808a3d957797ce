//! An agent's table: pure, from one or two of its answers.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use onespace_core::objective::Counts;
use onespace_core::report::{LimitsReport, MappingReport, ObjectiveReport, Report, RunState};

use super::columns::{age, columns};

/// What an agent answered, and when.
pub(super) struct Sample {
    pub at: Instant,
    pub reports: Vec<Report>,
}

impl Sample {
    fn mappings(&self) -> impl Iterator<Item = &MappingReport> {
        self.reports.iter().flat_map(|report| &report.mappings)
    }

    /// Whether anything is under way.
    pub fn has_backlog(&self) -> bool {
        self.mappings().any(|mapping| {
            mapping.state == RunState::Running && (mapping.pending.rows > 0 || !mapping.initial_pass_complete)
        })
    }
}

const HEAD: [&str; 8] = [
    "POLICY", "STATE", "PENDING", "LAG", "HELD", "OBJECTS", "SENT", "RATE",
];

/// Draws the table; with an earlier sample also how fast the backlog shrinks.
pub(super) fn table(sample: &Sample, earlier: Option<&Sample>, now: jiff::Timestamp) -> String {
    let mut rows = vec![HEAD.map(str::to_owned)];
    let mut notes = String::new();
    for mapping in sample.mappings() {
        let before = earlier.and_then(|earlier| {
            let same = earlier.mappings().find(|other| other.id == mapping.id)?;
            Some((sample.at.duration_since(earlier.at), same))
        });
        rows.push(row(mapping, before, now));
        note(&mut notes, mapping);
    }
    let mut text = String::new();
    if let Some(report) = sample.reports.first() {
        let agent = &report.agent;
        let _ = writeln!(
            text,
            "agent {} (version {}), configuration {}",
            agent.node, agent.version, report.config.revision
        );
        if let Some(error) = &report.config.error {
            let _ = writeln!(text, "newer mapping files are not loaded: {error}");
        }
        for refused in &report.config.refused {
            let _ = writeln!(
                text,
                "mapping {} is refused ({}): {}",
                refused.id, refused.reason, refused.message
            );
        }
    }
    text + &columns(&rows) + &notes
}

fn row(
    mapping: &MappingReport,
    before: Option<(Duration, &MappingReport)>,
    now: jiff::Timestamp,
) -> [String; 8] {
    let policy = mapping.policy.as_ref().map_or_else(
        || mapping.id.clone(),
        |policy| format!("{}/{}", policy.namespace, policy.name),
    );
    let state = match &mapping.reason {
        Some(reason) => format!("{:?} ({reason})", mapping.state),
        None => format!("{:?}", mapping.state),
    };
    let pending = &mapping.pending;
    let about = if pending.exact { "" } else { "~" };
    let lag = pending
        .oldest
        .as_deref()
        .and_then(|oldest| oldest.parse::<jiff::Timestamp>().ok())
        .map_or_else(
            || "-".to_owned(),
            |oldest| age(now.as_second() - oldest.as_second()),
        );
    [
        policy,
        state,
        format!("{about}{}", pending.rows),
        lag,
        mapping.held.rows.to_string(),
        mapping.totals.objects.to_string(),
        size(mapping.totals.bytes),
        before.map_or_else(|| "-".to_owned(), |(time, before)| rate(mapping, time, before)),
    ]
}

/// Objects per second, and how long the backlog will take at that.
fn rate(mapping: &MappingReport, time: Duration, before: &MappingReport) -> String {
    let done = mapping.totals.objects.saturating_sub(before.totals.objects);
    let milliseconds = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
    let per_second = done.saturating_mul(1000) / milliseconds;
    if per_second == 0 {
        return "0/s".to_owned();
    }
    let left = i64::try_from(mapping.pending.rows / per_second).unwrap_or(i64::MAX);
    if mapping.pending.rows == 0 {
        format!("{per_second}/s")
    } else {
        format!("{per_second}/s, {} left", age(left))
    }
}

/// What a person should know beside the numbers.
fn note(notes: &mut String, mapping: &MappingReport) {
    let name = mapping
        .policy
        .as_ref()
        .map_or(mapping.id.as_str(), |policy| policy.name.as_str());
    if let Some(message) = &mapping.message {
        let _ = writeln!(notes, "{name}: {message}");
    }
    if mapping.databases.unreadable > 0 {
        let _ = writeln!(
            notes,
            "{name}: {} databases or devices cannot be read",
            mapping.databases.unreadable
        );
    }
    if let Some(objective) = &mapping.objective {
        let _ = writeln!(notes, "{name}: {}", in_time(objective));
    }
    if let Some(limits) = &mapping.limits {
        let _ = writeln!(notes, "{name}: {}", allowed(*limits));
    }
    for held in &mapping.held.latest {
        let next = held
            .next_try
            .as_ref()
            .map_or_else(|| "on request".to_owned(), |time| format!("at {time}"));
        let _ = writeln!(
            notes,
            "{name}: held {} ({}, {} tries, next {next}): {}",
            held.object.escape_debug(),
            held.reason,
            held.attempts,
            held.message
        );
    }
}

/// How fast it may work now.
fn allowed(limits: LimitsReport) -> String {
    let LimitsReport {
        bytes_per_second,
        requests_per_second,
        window,
    } = limits;
    let bytes = bytes_per_second.map(|bytes| format!("{}/s", size(bytes)));
    let requests = requests_per_second.map(|requests| format!("{requests} requests/s"));
    let rates: Vec<_> = [bytes, requests].into_iter().flatten().collect();
    let rates = match rates.is_empty() {
        true => "none now".to_owned(),
        false => rates.join(", "),
    };
    let by = window.map_or_else(String::new, |window| format!(" (windows[{window}])"));
    format!("limits: {rates}{by}")
}

/// How many rows were in step in time: this agent's part of the objective.
fn in_time(objective: &ObjectiveReport) -> String {
    let Counts { good, missed } = objective.rows;
    let since = objective.since.as_deref().unwrap_or("the start");
    let all = good.saturating_add(missed);
    if all == 0 {
        return format!("objective: no rows since {since}");
    }
    // Rounded down: 100% means all of them.
    let share = u128::from(good) * 100_000 / u128::from(all);
    format!(
        "objective: {good} of {all} rows in time since {since} ({}.{:03}%)",
        share / 1000,
        share % 1000
    )
}

fn size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut rest = bytes;
    let mut last = 0;
    for unit in units {
        if rest < 1024 {
            let tenths = if unit == "B" {
                String::new()
            } else {
                format!(".{}", last * 10 / 1024)
            };
            return format!("{rest}{tenths} {unit}");
        }
        last = rest % 1024;
        rest /= 1024;
    }
    format!("{rest} EiB")
}

#[cfg(test)]
mod tests {
    use super::*;
    use onespace_core::mapping::PolicyRef;
    use onespace_core::report::{HeldReport, HeldRow, Pending, Totals};

    fn mapping(objects: u64, pending: u64) -> MappingReport {
        MappingReport {
            id: "1".into(),
            policy: Some(PolicyRef {
                namespace: "swift".into(),
                name: "photos".into(),
                generation: 1,
            }),
            pending: Pending {
                rows: pending,
                exact: true,
                oldest: Some("2026-01-02T03:04:05Z".into()),
            },
            totals: Totals {
                objects,
                bytes: 3 << 19,
                ..Totals::default()
            },
            ..MappingReport::default()
        }
    }

    fn sample(at: Instant, mapping: MappingReport) -> Sample {
        Sample {
            at,
            reports: vec![Report {
                mappings: vec![mapping],
                ..Report::default()
            }],
        }
    }

    #[test]
    fn the_table_shows_backlog_lag_and_how_long_it_will_take() {
        let start = Instant::now();
        let before = sample(start, mapping(100, 1000));
        let after = sample(start + Duration::from_secs(2), mapping(300, 800));
        let text = table(&after, Some(&before), "2026-01-02T04:05:05Z".parse().unwrap());
        let line = text.lines().last().unwrap();
        for cell in [
            "swift/photos",
            "Running",
            "800",
            "1h01m",
            "300",
            "1.5 MiB",
            "100/s, 8s left",
        ] {
            assert!(line.contains(cell), "{cell} in {text}");
        }
    }

    #[test]
    fn the_share_of_rows_in_time_is_shown_and_never_rounded_up() {
        let mut measured = mapping(0, 0);
        measured.objective = Some(ObjectiveReport {
            rows: Counts {
                good: 999_999,
                missed: 1,
            },
            since: Some("2026-01-01T03:04:05Z".into()),
        });
        let text = table(
            &sample(Instant::now(), measured.clone()),
            None,
            jiff::Timestamp::UNIX_EPOCH,
        );
        let line = "photos: objective: 999999 of 1000000 rows in time since 2026-01-01T03:04:05Z (99.999%)";
        assert!(text.contains(line), "{text}");
        measured.objective = Some(ObjectiveReport::default());
        let text = table(
            &sample(Instant::now(), measured),
            None,
            jiff::Timestamp::UNIX_EPOCH,
        );
        assert!(text.contains("objective: no rows since the start"), "{text}");
    }

    #[test]
    fn the_limits_in_force_are_shown_with_their_window() {
        let mut limited = mapping(0, 0);
        limited.limits = Some(LimitsReport {
            bytes_per_second: Some(50 << 20),
            requests_per_second: Some(200),
            window: Some(0),
        });
        let text = table(
            &sample(Instant::now(), limited),
            None,
            jiff::Timestamp::UNIX_EPOCH,
        );
        let line = "photos: limits: 50.0 MiB/s, 200 requests/s (windows[0])";
        assert!(text.contains(line), "{text}");
    }

    #[test]
    fn a_held_row_is_shown_with_its_reason_and_what_to_do() {
        let mut held = mapping(0, 0);
        held.held = HeldReport {
            rows: 1,
            full: false,
            latest: vec![HeldRow {
                object: "c/evil\u{1b}[2J".into(),
                reason: "Refused".into(),
                message: "rename it".into(),
                attempts: 3,
                ..HeldRow::default()
            }],
            ..HeldReport::default()
        };
        let text = table(&sample(Instant::now(), held), None, jiff::Timestamp::UNIX_EPOCH);
        assert!(
            text.contains("Refused, 3 tries, next on request): rename it"),
            "{text}"
        );
        assert!(!text.contains('\u{1b}'), "names cannot move the cursor");
    }
}
