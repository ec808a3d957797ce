//! The reference of a program's metrics, made of what it serves: a test compares it with `docs/metrics.md`.

/// A section of the reference: a line for each metric of a text in Prometheus' format, labels in the order of the alphabet.
#[must_use]
pub fn section(title: &str, text: &str) -> String {
    let mut section = format!("## {title}\n\n| metric | type | labels | what it is |\n|---|---|---|---|\n");
    let mut help = "";
    let mut pending: Option<(&str, &str)> = None;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ').map_or("", |(_, help)| help);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            pending = rest.split_once(' ');
        } else if let Some((name, kind)) = pending.take() {
            let labels = line
                .split(['{', ',', '}'])
                .filter_map(|part| part.split_once('='));
            // Those of a histogram's buckets are no labels of ours.
            let labels = labels.map(|(label, _)| label).filter(|label| *label != "le");
            let labels: Vec<String> = labels.map(|label| format!("`{label}`")).collect();
            section += &format!("| `{name}` | {kind} | {} | {help} |\n", labels.join(", "));
        }
    }
    section
}

/// The section of this title in the whole reference.
#[must_use]
pub fn section_of<'a>(reference: &'a str, title: &str) -> &'a str {
    let heading = format!("## {title}\n");
    let Some(start) = reference.find(&heading) else {
        return "";
    };
    let rest = &reference[start..];
    let end = rest[heading.len()..].find("\n## ").map(|end| heading.len() + end);
    end.map_or(rest, |end| &rest[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_a_line_with_its_own_labels_whatever_its_kind() {
        let text = "# HELP a_total How many.\n# TYPE a_total counter\na_total{kind=\"x\",name=\"y\"} 1\na_total{kind=\"z\",name=\"y\"} 1\n\
                    # HELP b_seconds How long.\n# TYPE b_seconds histogram\nb_seconds_bucket{le=\"1\"} 0\nb_seconds_sum 0\n";
        let section = section("Agent", text);
        let lines: Vec<&str> = section.lines().skip(4).collect();
        assert_eq!(
            lines,
            [
                "| `a_total` | counter | `kind`, `name` | How many. |",
                "| `b_seconds` | histogram |  | How long. |"
            ]
        );
        let whole = format!("# Metrics\n\n{section}\n## Operator\n\nmore\n");
        assert_eq!(section_of(&whole, "Agent"), section);
        assert_eq!(section_of(&whole, "Operator"), "## Operator\n\nmore\n");
        assert_eq!(section_of(&whole, "Else"), "");
    }
}
