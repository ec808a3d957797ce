//! Structural schemas as Kubernetes checks them: just the words that our CRDs use.

use onespace_core::reason::PolicyFault;
use onespace_core::validate::Finding;
use regex::Regex;
use serde_json::Value;

/// How bad a violation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Severity {
    /// A wrong type, a missing field, a value that is not in the list, or too much of something: the API server then
    /// evaluates no rules.
    Blocking,
    /// Anything else.
    Other,
}

type Problems = Vec<(Severity, Finding)>;

/// Everything in `object` that its schema does not allow. At the root, `apiVersion`, `kind` and `metadata` are as the
/// API server adds them to every schema.
pub(super) fn check(schema: &Value, object: &Value) -> Problems {
    let mut problems = Vec::new();
    let mut object = object.clone();
    if let Some(object) = object.as_object_mut() {
        for implied in ["apiVersion", "kind", "metadata"] {
            object.remove(implied);
        }
    }
    walk(schema, &object, "", &mut problems);
    problems
}

fn walk(schema: &Value, value: &Value, path: &str, problems: &mut Problems) {
    let mut add = |severity, message: String| {
        let path = if path.is_empty() { "the object" } else { path };
        problems.push((severity, Finding::new(path, PolicyFault::Invalid, message)));
    };
    let limit = |word: &str| schema.get(word).and_then(Value::as_u64);

    let int_or_string = schema.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true));
    let wanted = schema.get("type").and_then(Value::as_str).unwrap_or_default();
    let found = kind_of(value);
    let fits = if int_or_string {
        found == "integer" || found == "string"
    } else {
        found == wanted
    };
    if !fits {
        let wanted = if int_or_string {
            "integer or string"
        } else {
            wanted
        };
        add(
            Severity::Blocking,
            format!("must be of type {wanted}, but is {found}"),
        );
        return;
    }

    if let Some(allowed) = schema.get("enum").and_then(Value::as_array)
        && !allowed.contains(value)
    {
        let allowed: Vec<_> = allowed.iter().map(Value::to_string).collect();
        add(
            Severity::Blocking,
            format!("unsupported value {value}: supported are {}", allowed.join(", ")),
        );
    }

    match value {
        Value::String(text) => {
            let length = text.chars().count() as u64;
            if limit("maxLength").is_some_and(|most| length > most) {
                add(
                    Severity::Blocking,
                    format!("too long: at most {} characters", limit("maxLength").unwrap_or(0)),
                );
            }
            if limit("minLength").is_some_and(|least| length < least) {
                add(
                    Severity::Other,
                    format!(
                        "too short: at least {} characters",
                        limit("minLength").unwrap_or(0)
                    ),
                );
            }
            if let Some(pattern) = schema.get("pattern").and_then(Value::as_str)
                && !Regex::new(pattern).is_ok_and(|regex| regex.is_match(text))
            {
                add(Severity::Other, format!("{value} should match {pattern}"));
            }
        }
        Value::Number(number) => {
            let bound = |word: &str| schema.get(word).and_then(Value::as_f64);
            let number = number.as_f64().unwrap_or(f64::NAN);
            if bound("minimum").is_some_and(|least| number < least) {
                add(
                    Severity::Other,
                    format!("should be at least {}", bound("minimum").unwrap_or(0.0)),
                );
            }
            if bound("maximum").is_some_and(|most| number > most) {
                add(
                    Severity::Other,
                    format!("should be at most {}", bound("maximum").unwrap_or(0.0)),
                );
            }
        }
        Value::Array(items) => {
            let count = items.len() as u64;
            if limit("maxItems").is_some_and(|most| count > most) {
                add(
                    Severity::Blocking,
                    format!("too many: at most {} items", limit("maxItems").unwrap_or(0)),
                );
            }
            if limit("minItems").is_some_and(|least| count < least) {
                add(
                    Severity::Other,
                    format!("too few: at least {} items", limit("minItems").unwrap_or(0)),
                );
            }
            let Some(schema) = schema.get("items") else { return };
            for (index, item) in items.iter().enumerate() {
                walk(schema, item, &format!("{path}[{index}]"), problems);
            }
        }
        Value::Object(fields) => {
            let required = schema.get("required").and_then(Value::as_array);
            for name in required.into_iter().flatten().filter_map(Value::as_str) {
                if !fields.contains_key(name) {
                    let finding = Finding::new(
                        below(path, name),
                        PolicyFault::Invalid,
                        "required value is missing",
                    );
                    problems.push((Severity::Blocking, finding));
                }
            }
            let known = schema.get("properties").and_then(Value::as_object);
            for (name, field) in fields {
                match known.and_then(|known| known.get(name)) {
                    Some(schema) => walk(schema, field, &below(path, name), problems),
                    None => {
                        let finding = Finding::new(below(path, name), PolicyFault::Invalid, "unknown field");
                        problems.push((Severity::Other, finding));
                    }
                }
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
}

fn below(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
