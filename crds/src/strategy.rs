//! The steps of a rollout, and who is put where.

use std::collections::BTreeMap;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::rules;

/// The steps, and who is put where.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[x_kube(validation = rules::not_yet("!has(self.sticky)", "spec.strategy.sticky", "remove it"))]
#[x_kube(validation = rules::not_yet("!has(self.match) || self.match.size() == 0", "spec.strategy.match", "remove it"))]
#[x_kube(validation = rules::not_yet("!has(self.mirror)", "spec.strategy.mirror", "remove it"))]
#[serde(rename_all = "camelCase")]
pub struct Strategy {
    /// The steps; default 10, 25, 50, 75, 100. Weights rise, and the last one is 100.
    #[serde(default = "default_steps")]
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(validation = Rule::new("self.exists(s, has(s.weight))").message("spec.strategy.steps needs at least one {weight: N}"))]
    #[x_kube(validation = Rule::new("self.filter(s, has(s.weight)).map(s, s.weight).isSorted()").message("the weights of spec.strategy.steps must rise: a falling step would take users back for no reason"))]
    #[x_kube(validation = Rule::new("self.all(s, !has(s.weight) || self.filter(t, has(t.weight) && t.weight == s.weight).size() == 1)").message("each weight may stand only once in spec.strategy.steps: use hold to stay longer"))]
    #[x_kube(validation = Rule::new("!self.exists(s, has(s.weight)) || self.exists(s, has(s.weight) && s.weight == 100)").message("the last weight of spec.strategy.steps must be 100"))]
    pub steps: Vec<Step>,
    /// Keeps a user on one arm, by a header or a cookie.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sticky: Option<Sticky>,
    /// Requests that go to the candidate from the first step.
    #[serde(rename = "match", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8))]
    pub matches: Option<Vec<RequestMatch>>,
    /// Share of requests copied to the candidate before any user sees its answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    #[x_kube(validation = rules::percent("spec.strategy.mirror"))]
    pub mirror: Option<String>,
}

/// One step: either a weight or a pause.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[x_kube(validation = Rule::new("has(self.weight) != has(self.pause)").message("a step is either {weight: N} or {pause: {}}"))]
#[x_kube(validation = Rule::new("!has(self.hold) || has(self.weight)").message("hold belongs to a step with a weight; for a pause of fixed length write {pause: {duration: 5m}}"))]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// Percent of the requests that go to the candidate, 1 to 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub weight: Option<i32>,
    /// The least time at this weight; default `analysis.hold`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = rules::duration("hold of a step"))]
    pub hold: Option<String>,
    /// Waits for `promote` or `resume`, or for the duration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pause: Option<Pause>,
}

/// A pause of the rollout.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Pause {
    /// How long; without it until a person says `resume`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = rules::duration("pause.duration of a step"))]
    pub duration: Option<String>,
}

/// What identifies a user for sticky assignment.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[x_kube(validation = Rule::new("has(self.header) != has(self.cookie)").message("spec.strategy.sticky takes either header or cookie"))]
#[serde(rename_all = "camelCase")]
pub struct Sticky {
    /// Name of a request header.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub header: Option<String>,
    /// Name of a cookie.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub cookie: Option<String>,
}

/// Requests selected by their headers.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RequestMatch {
    /// All of these must match.
    #[schemars(length(min = 1, max = 16))]
    pub headers: BTreeMap<String, StringMatch>,
}

/// How a string must look.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[x_kube(validation = Rule::new("has(self.exact) != has(self.prefix)").message("a header match takes either exact or prefix"))]
#[serde(rename_all = "camelCase")]
pub struct StringMatch {
    /// The whole value.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub exact: Option<String>,
    /// Its beginning.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub prefix: Option<String>,
}

impl Default for Strategy {
    fn default() -> Self {
        Self {
            steps: default_steps(),
            sticky: None,
            matches: None,
            mirror: None,
        }
    }
}

fn default_steps() -> Vec<Step> {
    [10, 25, 50, 75, 100]
        .map(|weight| Step {
            weight: Some(weight),
            ..Step::default()
        })
        .to_vec()
}
