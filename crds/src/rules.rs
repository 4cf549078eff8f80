//! The CEL rules that several fields share. A schema's `pattern` would say a regular expression
//! to whoever got it wrong; these say a sentence.

use kube::core::Rule;

use crate::units::{DURATION_PATTERN, PERCENT_PATTERN};

/// 50% and more, below 100%.
const CONFIDENCE_PATTERN: &str = r"^[5-9][0-9](\.[0-9]{1,4})?%$";
/// RFC 1035, as the names of Services are.
const SERVICE_PATTERN: &str = "^[a-z]([-a-z0-9]*[a-z0-9])?$";
/// RFC 1123, as the names of namespaces are, or one of `.`, `*` and `~`.
const EXPORT_TO_PATTERN: &str = r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?|[.*~])$";
/// What a label's value may be; it is not empty here.
const LABEL_VALUE_PATTERN: &str = "^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$";

/// A percentage between 0% and 100%.
pub(crate) fn percent(field: &str) -> Rule {
    Rule::new(matches("self", PERCENT_PATTERN)).message(&*format!(
        "{field} must be a percentage between 0% and 100%: write it like 1% or 0.5%"
    ))
}

/// A percentage that a confidence may be.
pub(crate) fn confidence(field: &str) -> Rule {
    Rule::new(matches("self", CONFIDENCE_PATTERN)).message(&*format!(
        "{field} must be at least 50% and below 100%: write it like 99.9%"
    ))
}

/// A duration, 0s included.
pub(crate) fn duration(field: &str) -> Rule {
    Rule::new(matches("self", DURATION_PATTERN)).message(&*format!(
        "{field} must be a duration: write it like 30s, 2m or 1h30m"
    ))
}

/// A duration within bounds, both included.
pub(crate) fn duration_between(field: &str, least: &str, most: &str) -> Rule {
    let is_duration = matches("self", DURATION_PATTERN);
    Rule::new(format!(
        "{is_duration} && duration(self) >= duration('{least}') && duration(self) <= duration('{most}')"
    ))
    .message(&*format!(
        "{field} must be a duration between {least} and {most}: write it like 30s, 2m or 1h30m"
    ))
}

/// Names of Services.
pub(crate) fn service_names(field: &str) -> Rule {
    let each = matches("name", SERVICE_PATTERN);
    Rule::new(format!("self.all(name, {each})")).message(&*format!(
        "{field} takes bare names of Services of this namespace: write reviews, not reviews.bookinfo"
    ))
}

/// Who sees a Service.
pub(crate) fn export_to(field: &str) -> Rule {
    let each = matches("entry", EXPORT_TO_PATTERN);
    Rule::new(format!("self.all(entry, {each})")).message(&*format!(
        "{field} takes names of namespaces, '.' (the Service's own), '*' (all) and '~' (none)"
    ))
}

/// Nobody and somebody is nobody's meaning.
pub(crate) fn nobody_stands_alone(field: &str) -> Rule {
    Rule::new("!self.exists(entry, entry == '~') || self.size() == 1").message(&*format!(
        "'~' in {field} means that no namespace sees the Service: write it alone, or leave it out"
    ))
}

/// A list that names nothing twice.
pub(crate) fn each_once(field: &str) -> Rule {
    Rule::new("self.all(name, self.exists_one(other, other == name))")
        .message(&*format!("{field} may name each of them only once"))
}

/// The value of a label.
pub(crate) fn label_value(field: &str) -> Rule {
    Rule::new(matches("self", LABEL_VALUE_PATTERN)).message(&*format!(
        "{field} must be the value of a label: letters, digits, - _ and . between them"
    ))
}

/// A Kubernetes quantity.
pub(crate) fn quantity(field: &str) -> Rule {
    Rule::new("isQuantity(self)").message(&*format!(
        "{field} must be a quantity: write it like 10m or 32Mi"
    ))
}

/// A field that stands in the API, and that nothing honours yet.
pub(crate) fn not_yet(absent: &str, field: &str, instead: &str) -> Rule {
    Rule::new(absent).message(&*format!("{field} is not in force yet: {instead}"))
}

/// The pattern in a raw CEL string, where a backslash is a backslash.
fn matches(subject: &str, pattern: &str) -> String {
    format!("{subject}.matches(r'{pattern}')")
}
