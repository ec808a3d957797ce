//! `spec.select` as agents read it.

use crate::select::{Match, Select};

pub(super) fn selection(select: &onespace_crds::Select) -> Select {
    let onespace_crds::Select {
        prefix,
        min_size,
        max_size,
        matcher,
    } = select;
    Select {
        prefix: prefix.clone(),
        min_size: min_size.as_ref().map(onespace_crds::Quantity::bytes),
        max_size: max_size.as_ref().map(onespace_crds::Quantity::bytes),
        matcher: matcher.as_ref().map(first_level),
    }
}

// Exactly one branch of each level is set: the schema saw to it. All that are set must hold, so that nothing
// could be selected by a branch that was overlooked.

fn first_level(level: &onespace_crds::Match) -> Match {
    let onespace_crds::Match {
        all,
        any,
        not,
        metadata,
    } = level;
    join(
        all.as_ref()
            .map(|branches| Match::All(branches.iter().map(second_level).collect())),
        any.as_ref()
            .map(|branches| Match::Any(branches.iter().map(second_level).collect())),
        not.as_ref()
            .map(|branch| Match::Not(Box::new(second_level(branch)))),
        metadata.as_ref().map(leaf),
    )
}

fn second_level(level: &onespace_crds::SubMatch) -> Match {
    let onespace_crds::SubMatch {
        all,
        any,
        not,
        metadata,
    } = level;
    let third_level = |level: &onespace_crds::SubSubMatch| leaf(&level.metadata);
    join(
        all.as_ref()
            .map(|branches| Match::All(branches.iter().map(third_level).collect())),
        any.as_ref()
            .map(|branches| Match::Any(branches.iter().map(third_level).collect())),
        not.as_ref()
            .map(|branch| Match::Not(Box::new(third_level(branch)))),
        metadata.as_ref().map(leaf),
    )
}

fn leaf(metadata: &onespace_crds::MetadataMatch) -> Match {
    Match::Metadata {
        name: metadata.name.clone(),
        value: metadata.value.clone(),
    }
}

fn join(all: Option<Match>, any: Option<Match>, not: Option<Match>, metadata: Option<Match>) -> Match {
    let mut given: Vec<Match> = [all, any, not, metadata].into_iter().flatten().collect();
    match given.pop() {
        Some(only) if given.is_empty() => only,
        last => Match::All(given.into_iter().chain(last).collect()),
    }
}
