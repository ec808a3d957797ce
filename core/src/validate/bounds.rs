//! What bounds a policy: its limits, its budget of deletes, its objective.

use onespace_crds::DeleteBudgetMax;

use super::Finding;
use crate::budget::{BudgetMax, DeleteBudget};
use crate::limits::{Limits, Schedule, Window};
use crate::objective::{Objective, Ratio};
use crate::reason::PolicyFault;

pub(super) fn limits(limits: &onespace_crds::Limits, findings: &mut Vec<Finding>) -> Limits {
    let onespace_crds::Limits {
        bytes_per_second,
        requests_per_second,
        windows,
    } = limits;
    let bytes =
        |quantity: &Option<onespace_crds::Quantity>| quantity.as_ref().map(onespace_crds::Quantity::bytes);
    let window = |window: &onespace_crds::LimitsWindow| {
        let onespace_crds::LimitsWindow {
            days,
            start,
            end,
            time_zone,
            bytes_per_second,
            requests_per_second,
        } = window;
        Window {
            days: days.clone().unwrap_or_default(),
            start: start.clone(),
            end: end.clone(),
            time_zone: time_zone.clone().unwrap_or_else(|| "UTC".to_owned()),
            bytes_per_second: bytes(bytes_per_second),
            requests_per_second: *requests_per_second,
        }
    };
    let limits = Limits {
        bytes_per_second: bytes(bytes_per_second),
        requests_per_second: *requests_per_second,
        windows: windows.iter().flatten().map(window).collect(),
    };
    if let Err(error) = Schedule::new(&limits) {
        let path = format!("spec.limits.{}", error.path);
        findings.push(Finding::new(path, PolicyFault::Invalid, error.what));
    }
    limits
}

/// An hour, unless the policy says otherwise.
const BUDGET_WINDOW: u64 = 3600;

pub(super) fn delete_budget(
    budget: &onespace_crds::DeleteBudget,
    findings: &mut Vec<Finding>,
) -> Option<DeleteBudget> {
    let onespace_crds::DeleteBudget { max, window } = budget;
    let max = match max {
        DeleteBudgetMax::Count(rows) => Ok(BudgetMax::Rows((*rows).into())),
        DeleteBudgetMax::Text(text) => BudgetMax::parse(text),
    };
    let mut refuse = |field: &str, message: String| {
        findings.push(Finding::new(
            format!("spec.deleteBudget.{field}"),
            PolicyFault::Invalid,
            message,
        ));
    };
    let window = window
        .as_ref()
        .map_or(BUDGET_WINDOW, onespace_crds::Duration::seconds);
    if window == 0 {
        refuse(
            "window",
            "a window of no time limits nothing: give one, like 1h".to_owned(),
        );
    }
    match max {
        Ok(max) => Some(DeleteBudget { max, window }),
        Err(error) => {
            refuse("max", error.to_string());
            None
        }
    }
}

/// A day, unless the policy says otherwise.
const OBJECTIVE_OVER: u64 = 24 * 3600;

pub(super) fn objective(
    objective: &onespace_crds::Objective,
    findings: &mut Vec<Finding>,
) -> Option<Objective> {
    let onespace_crds::Objective { ratio, within, over } = objective;
    let mut refuse = |field: &str, message: String| {
        let path = format!("spec.objective.{field}");
        findings.push(Finding::new(path, PolicyFault::Invalid, message));
    };
    let (within, over) = (
        within.seconds(),
        over.as_ref()
            .map_or(OBJECTIVE_OVER, onespace_crds::Duration::seconds),
    );
    if within == 0 {
        refuse(
            "within",
            "no row is done in no time: give some, like 10m".to_owned(),
        );
    }
    if over <= within {
        refuse(
            "over",
            "rows would leave the window before they are late: make `over` (24h when absent) longer than `within`"
                .to_owned(),
        );
    }
    match Ratio::parse(ratio) {
        Ok(ratio) => Some(Objective { ratio, within, over }),
        Err(error) => {
            refuse("ratio", error.to_string());
            None
        }
    }
}
