//! The name of a revision: a hash of its pod template.

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use sluice_crds::names;

/// Set by `kubectl rollout restart`: the same revision, started anew.
const RESTARTED_AT: &str = "kubectl.kubernetes.io/restartedAt";

/// The revision of a pod template as the apiserver has defaulted it: 16 hexadecimal digits of
/// the SHA-256 of its canonical JSON, without restart annotations, `sluice.dev/*` and
/// `pod-template-hash`. Restarts and our own marks are not releases.
#[must_use]
pub fn of_template(template: &Value) -> String {
    let mut template = template.clone();
    if let Some(metadata) = template.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("creationTimestamp");
        strip(metadata, "annotations");
        strip(metadata, "labels");
    }
    let mut text = String::new();
    write_canonical(&template, &mut text);
    let digest = Sha256::digest(text.as_bytes());
    digest
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// `pod-template-hash` of our ReplicaSet for a revision.
#[must_use]
pub fn candidate_pod_hash(revision: &str) -> String {
    let short = revision.get(..10).unwrap_or(revision);
    format!("{}{short}", names::CANDIDATE_HASH_PREFIX)
}

fn strip(metadata: &mut Map<String, Value>, field: &str) {
    let Some(entries) = metadata.get_mut(field).and_then(Value::as_object_mut) else {
        metadata.remove(field);
        return;
    };
    entries.retain(|key, _| {
        key != RESTARTED_AT && key != names::POD_TEMPLATE_HASH && !key.starts_with("sluice.dev/")
    });
    if entries.is_empty() {
        metadata.remove(field);
    }
}

/// JSON with sorted keys and without nulls, so that equal templates have equal texts.
fn write_canonical(value: &Value, text: &mut String) {
    match value {
        Value::Object(fields) => {
            let mut sorted: Vec<_> = fields.iter().filter(|(_, v)| !v.is_null()).collect();
            sorted.sort_by_key(|(key, _)| *key);
            text.push('{');
            for (index, (key, inner)) in sorted.into_iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                text.push_str(&Value::String(key.clone()).to_string());
                text.push(':');
                write_canonical(inner, text);
            }
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for (index, inner) in items.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write_canonical(inner, text);
            }
            text.push(']');
        }
        scalar => text.push_str(&scalar.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn template() -> Value {
        json!({
            "metadata": {"labels": {"app": "reviews"}},
            "spec": {"containers": [{"name": "app", "image": "reviews:1"}]}
        })
    }

    #[test]
    fn a_restart_and_our_own_marks_are_not_a_new_revision() {
        let mut restarted = template();
        restarted["metadata"]["annotations"] =
            json!({RESTARTED_AT: "2026-01-01T00:00:00Z", "sluice.dev/x": "y"});
        restarted["metadata"]["labels"]["pod-template-hash"] = json!("abc");
        restarted["metadata"]["creationTimestamp"] = Value::Null;
        assert_eq!(of_template(&restarted), of_template(&template()));
    }

    #[test]
    fn another_image_or_label_is_a_new_revision() {
        let mut image = template();
        image["spec"]["containers"][0]["image"] = json!("reviews:2");
        let mut label = template();
        label["metadata"]["labels"]["tier"] = json!("front");
        assert_ne!(of_template(&image), of_template(&template()));
        assert_ne!(of_template(&label), of_template(&template()));
    }

    #[test]
    fn the_order_of_keys_does_not_matter() {
        let a: Value = serde_json::from_str(r#"{"spec":{"a":1,"b":2}}"#).expect("json");
        let b: Value = serde_json::from_str(r#"{"spec":{"b":2,"a":1}}"#).expect("json");
        assert_eq!(of_template(&a), of_template(&b));
    }
}
