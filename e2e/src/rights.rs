//! What the chart grants to our accounts, against what they asked an apiserver for as its audit
//! log tells it.
//!
//! **Invariants**
//! - A request proves the narrowest right that covers it, so that a right for the whole cluster
//!   which is needed in our own namespace alone is found.

use std::{collections::BTreeSet, fmt};

use serde_json::Value;

use crate::world::SYSTEM;

/// One verb on one resource.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    /// `controller`, `serving` or `ca`.
    pub account: String,
    /// `get`, `list`, ...
    pub verb: String,
    /// Group, a dot and the resource; the resource alone for the core group. Then a slash and the
    /// subresource, if it is of one.
    pub resource: String,
    /// The one object that it is about; none for all of them.
    pub name: Option<String>,
    /// Whether it is of our own namespace alone.
    pub is_own: bool,
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} {}", self.account, self.verb, self.resource)?;
        if let Some(name) = &self.name {
            write!(f, " {name}")?;
        }
        if self.is_own {
            write!(f, " in {SYSTEM}")?;
        }
        Ok(())
    }
}

/// A request of one of our accounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// As in [`Right`].
    pub account: String,
    /// As in [`Right`].
    pub verb: String,
    /// As in [`Right`]; the path where it is none of the API's.
    pub resource: String,
    /// Empty for lists, watches and creations that name nobody.
    pub name: String,
    /// Empty for the whole cluster.
    pub namespace: String,
    /// Whether the account may not do it.
    pub is_refused: bool,
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} {}", self.account, self.verb, self.resource)?;
        for part in [&self.namespace, &self.name] {
            if !part.is_empty() {
                write!(f, " {part}")?;
            }
        }
        Ok(())
    }
}

/// Where rights and requests do not fit together.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Granted, and never asked for.
    pub unused: BTreeSet<String>,
    /// Asked for, and refused.
    pub refused: BTreeSet<String>,
}

/// The rights of our accounts by the documents of a rendered chart.
#[must_use]
pub fn granted(documents: &[Value]) -> BTreeSet<Right> {
    let mut rights = BTreeSet::new();
    for binding in documents {
        let is_own = match text(&binding["kind"]) {
            "RoleBinding" => true,
            "ClusterRoleBinding" => false,
            _ => continue,
        };
        let role = &binding["roleRef"];
        let is_it = |document: &&Value| {
            document["kind"] == role["kind"] && document["metadata"]["name"] == role["name"]
        };
        let rules = documents
            .iter()
            .filter(is_it)
            .flat_map(|role| items(&role["rules"]));
        for rule in rules {
            for subject in items(&binding["subjects"]) {
                let account = text(&subject["name"]).trim_start_matches("sluice-");
                rights.extend(of_rule(account, is_own, rule));
            }
        }
    }
    rights
}

fn of_rule(account: &str, is_own: bool, rule: &Value) -> Vec<Right> {
    let names: Vec<Option<String>> = match &rule["resourceNames"] {
        Value::Array(names) => names
            .iter()
            .map(|name| Some(text(name).to_owned()))
            .collect(),
        _ => vec![None],
    };
    let mut rights = Vec::new();
    for group in items(&rule["apiGroups"]) {
        for named in items(&rule["resources"]) {
            for verb in items(&rule["verbs"]) {
                rights.extend(names.iter().map(|name| Right {
                    account: account.to_owned(),
                    verb: text(verb).to_owned(),
                    resource: resource(text(group), text(named)),
                    name: name.clone(),
                    is_own,
                }));
            }
        }
    }
    rights
}

/// The requests that a line of an audit log tells of: none when it is not of our accounts. An
/// apply that makes its object has needed two rights.
#[must_use]
pub fn asked(line: &str) -> Vec<Asked> {
    let prefix = format!("system:serviceaccount:{SYSTEM}:sluice-");
    if !line.contains(&prefix) {
        return Vec::new();
    }
    // The last line may not be whole yet.
    let event: Value = serde_json::from_str(line).unwrap_or_default();
    let Some(account) = text(&event["user"]["username"]).strip_prefix(&prefix) else {
        return Vec::new();
    };
    let (object, answer) = (&event["objectRef"], &event["responseStatus"]);
    let why = text(&answer["message"]);
    // An apiserver that has just started has read a binding before the role that it binds.
    let has_just_started = why.contains("RBAC: ") && why.ends_with(" not found");
    let is_forbidden = event["annotations"]["authorization.k8s.io/decision"] == "forbid"
        || answer["code"] == 403 && why.contains("\" cannot ");
    let is_refused = is_forbidden && !has_just_started;
    let asked = Asked {
        account: account.to_owned(),
        verb: text(&event["verb"]).to_owned(),
        resource: resource_of(&event),
        name: text(&object["name"]).to_owned(),
        namespace: text(&object["namespace"]).to_owned(),
        is_refused,
    };
    let mut all = vec![asked.clone()];
    if asked.verb == "patch" && answer["code"] == 201 {
        let verb = "create".to_owned();
        all.push(Asked { verb, ..asked });
    }
    all
}

/// What was granted in vain, and what was refused.
#[must_use]
pub fn compare(granted: &BTreeSet<Right>, asked: impl IntoIterator<Item = Asked>) -> Findings {
    let mut findings = Findings::default();
    let mut unused = granted.clone();
    for asked in asked {
        if asked.is_refused {
            findings.refused.insert(asked.to_string());
            continue;
        }
        if let Some(right) = narrowest(granted, &asked) {
            unused.remove(right);
        }
    }
    findings.unused = unused.iter().map(Right::to_string).collect();
    findings
}

/// The right that a request proves.
fn narrowest<'a>(granted: &'a BTreeSet<Right>, asked: &Asked) -> Option<&'a Right> {
    let covers = |right: &&Right| {
        let is_same = right.account == asked.account
            && right.verb == asked.verb
            && right.resource == asked.resource;
        let is_there = !right.is_own || asked.namespace == SYSTEM;
        is_same && is_there && right.name.as_ref().is_none_or(|name| *name == asked.name)
    };
    let rights = granted.iter().filter(covers);
    let best = rights.max_by_key(|right| (right.is_own, right.name.is_some()))?;
    // A right for the whole cluster is for what is not ours.
    (best.is_own || asked.namespace != SYSTEM).then_some(best)
}

fn resource_of(event: &Value) -> String {
    let object = &event["objectRef"];
    if object["resource"].is_null() {
        return text(&event["requestURI"]).to_owned();
    }
    let mut named = text(&object["resource"]).to_owned();
    if let Some(subresource) = object["subresource"].as_str() {
        named = format!("{named}/{subresource}");
    }
    resource(text(&object["apiGroup"]), &named)
}

fn resource(group: &str, named: &str) -> String {
    if group.is_empty() {
        return named.to_owned();
    }
    format!("{group}.{named}")
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn chart() -> Vec<Value> {
        let subjects =
            json!([{"kind": "ServiceAccount", "name": "sluice-ca", "namespace": SYSTEM}]);
        let binding = |kind: &str, role: &str| {
            json!({"kind": kind, "metadata": {"name": "sluice-ca"},
                "roleRef": {"kind": role, "name": "sluice-ca"}, "subjects": subjects})
        };
        let role = |kind: &str, rules: Value| json!({"kind": kind, "metadata": {"name": "sluice-ca"}, "rules": rules});
        let everywhere = json!([
            {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["root"], "verbs": ["create", "patch"]},
            {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create"]},
        ]);
        let own = json!([{"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a", "b"], "verbs": ["watch"]}]);
        vec![
            role("ClusterRole", everywhere),
            binding("ClusterRoleBinding", "ClusterRole"),
            role("Role", own),
            binding("RoleBinding", "Role"),
        ]
    }

    fn line(verb: &str, resource: &str, namespace: &str, name: &str, code: u16) -> String {
        json!({
            "user": {"username": "system:serviceaccount:sluice-system:sluice-ca"}, "verb": verb,
            "objectRef": {"resource": resource, "namespace": namespace, "name": name},
            "responseStatus": {"code": code},
            "annotations": {"authorization.k8s.io/decision": if code == 403 { "forbid" } else { "allow" }},
        })
        .to_string()
    }

    fn found(lines: &[String]) -> Findings {
        let asked = lines.iter().flat_map(|line| asked(line));
        compare(&granted(&chart()), asked)
    }

    #[test]
    fn what_is_granted_and_never_asked_for_is_found() {
        let findings = found(&[]);
        let all = [
            "ca: create configmaps root",
            "ca: create events.k8s.io.events",
            "ca: patch configmaps root",
            "ca: watch secrets a in sluice-system",
            "ca: watch secrets b in sluice-system",
        ];
        assert_eq!(findings.unused.iter().collect::<Vec<_>>(), all);
        let findings = found(&[
            line("watch", "secrets", SYSTEM, "b", 200),
            line("patch", "configmaps", "shop", "root", 201),
        ]);
        let left = [
            "ca: create events.k8s.io.events",
            "ca: watch secrets a in sluice-system",
        ];
        assert_eq!(findings.unused.iter().collect::<Vec<_>>(), left);
        assert!(findings.refused.is_empty());
    }

    #[test]
    fn what_an_apiserver_refuses_before_it_has_read_the_roles_says_nothing_of_the_rights() {
        let refused = |why: &str| {
            let mut event: Value =
                serde_json::from_str(&line("get", "leases", SYSTEM, "ca", 403)).unwrap_or_default();
            event["responseStatus"]["message"] = json!(format!("\"ca\" cannot get leases{why}"));
            !found(&[event.to_string()]).refused.is_empty()
        };
        assert!(refused(""));
        assert!(!refused(
            ": RBAC: role.rbac.authorization.k8s.io \"sluice-ca\" not found"
        ));
    }

    #[test]
    fn a_right_for_the_whole_cluster_is_not_proved_by_what_happens_in_our_own_namespace() {
        let findings = found(&[line("patch", "configmaps", SYSTEM, "root", 200)]);
        assert!(findings.unused.contains("ca: patch configmaps root"));
    }

    #[test]
    fn what_is_refused_is_found_though_the_same_was_allowed_before() {
        let allowed = line("watch", "secrets", SYSTEM, "a", 200);
        let refused = line("watch", "secrets", SYSTEM, "a", 403);
        let findings = found(&[allowed, refused]);
        let told = ["ca: watch secrets sluice-system a"];
        assert_eq!(findings.refused.iter().collect::<Vec<_>>(), told);
        let anybody = line("watch", "secrets", SYSTEM, "a", 403).replace("sluice-ca", "other");
        assert!(found(&[anybody]).refused.is_empty());
    }
}
