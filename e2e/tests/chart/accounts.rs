//! What the chart's accounts may do, asked of a real apiserver: RBAC names kinds and objects, the
//! admission policies name fields.

#[path = "accounts/autoscalers.rs"]
mod autoscalers;
#[path = "accounts/keys.rs"]
mod keys;
#[path = "accounts/splits.rs"]
mod splits;
#[path = "accounts/workloads.rs"]
mod workloads;

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use k8s_openapi::api::{
    admissionregistration::v1::MutatingWebhookConfiguration,
    authorization::v1::SubjectAccessReview,
    core::v1::{Namespace, Secret, ServiceAccount},
};
use kube::{
    Api, Client, Error, Resource,
    api::{Patch, PatchParams, PostParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::{
    api::{client, config},
    helm,
};

const SYSTEM: &str = "sluice-system";

/// A namespace in an apiserver that has the chart, and our accounts.
struct Place {
    namespace: String,
    admin: Client,
    controller: Client,
    serving: Client,
    ca: Client,
}

impl Place {
    async fn new(namespace: &str) -> Self {
        static INSTALLED: OnceCell<()> = OnceCell::const_new();
        INSTALLED.get_or_init(install).await;
        let place = Self {
            namespace: namespace.to_owned(),
            admin: client().await,
            controller: account("controller").await,
            serving: account("serving").await,
            ca: account("ca").await,
        };
        let object = json!({"metadata": {"name": namespace}});
        apply::<Namespace>(&Api::all(place.admin.clone()), namespace, object).await;
        // No controller manager runs here that would make it.
        place.set::<ServiceAccount>("default", json!({})).await;
        place
    }

    /// The objects of a kind in the place's namespace, as somebody sees them.
    fn of<K>(&self, who: &Client) -> Api<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(who.clone(), &self.namespace)
    }

    /// The administrator brings an object about.
    async fn set<K>(&self, name: &str, object: Value) -> K
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + k8s_openapi::Resource
            + Clone
            + DeserializeOwned
            + std::fmt::Debug,
    {
        apply(&self.of::<K>(&self.admin), name, object).await
    }
}

async fn apply<K>(api: &Api<K>, name: &str, mut object: Value) -> K
where
    K: k8s_openapi::Resource + Clone + DeserializeOwned + std::fmt::Debug,
{
    object["apiVersion"] = json!(K::API_VERSION);
    object["kind"] = json!(K::KIND);
    object["metadata"]["name"] = json!(name);
    let params = PatchParams::apply("administrator").force();
    api.patch(name, &params, &Patch::Apply(object))
        .await
        .unwrap()
}

/// Installs the chart, and waits for the last of its policies to be in force.
async fn install() {
    upgrade("info");
    let api = Api::<Secret>::namespaced(account("ca").await, SYSTEM);
    let other = typed(json!({"metadata": {"name": "other"}}));
    until_refused(&api, &other).await;
}

/// Waits for the policy that refuses this object to be in force.
async fn until_refused<K>(api: &Api<K>, object: &K)
where
    K: Clone + DeserializeOwned + Serialize + std::fmt::Debug,
{
    let dry_run = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    for _ in 0..200 {
        // A kind whose CRD has just come is not served for a moment.
        let told = api.create(&dry_run, object).await;
        if told.is_err_and(|error| !matches!(error, Error::Api(status) if status.code == 404)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the admission policies are not in force after 10 s");
}

/// Installs the chart, or brings it up to date.
fn upgrade(log_filter: &str) {
    let filter = format!("logFilter={log_filter}");
    // The CRDs' own tests bring theirs.
    helm::upgrade(&crate::api::kubeconfig(), &["--set", &filter])
        .unwrap_or_else(|why| panic!("{why}"));
}

/// A client that acts as one of our accounts.
async fn account(role: &str) -> Client {
    let user = format!("system:serviceaccount:{SYSTEM}:sluice-{role}");
    acting_as(&user, &["system:serviceaccounts", "system:authenticated"]).await
}

/// A client that acts as somebody else.
async fn acting_as(user: &str, groups: &[&str]) -> Client {
    let mut config = config().await;
    let groups = groups.iter().map(|&group| ("impersonate-group", group));
    for (header, value) in [("impersonate-user", user)].into_iter().chain(groups) {
        let header = HeaderName::from_static(header);
        config
            .headers
            .push((header, HeaderValue::from_str(value).unwrap()));
    }
    Client::try_from(config).unwrap()
}

/// The refusal's sentence.
fn refusal<T: std::fmt::Debug>(outcome: kube::Result<T>) -> String {
    match outcome {
        Err(Error::Api(status)) => status.message,
        other => panic!("not refused: {other:?}"),
    }
}

fn merge(patch: Value) -> Patch<Value> {
    Patch::Merge(patch)
}

fn typed<K: DeserializeOwned>(object: Value) -> K {
    serde_json::from_value(object).unwrap()
}

/// The controller's list and the certificate are in no manifest: an upgrade must not take them away.
#[tokio::test]
async fn an_upgrade_of_the_chart_keeps_whom_the_webhooks_are_asked_about_and_their_certificate() {
    let place = Place::new("accounts-upgrade").await;
    let condition = json!("request.namespace == 'accounts-upgrade' && false");
    let webhook = |more: Value| {
        let mut webhook = json!({"name": "hold.sluice.dev"});
        webhook
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration", "webhooks": [webhook]})
    };
    let conditions =
        webhook(json!({"matchConditions": [{"name": "governed", "expression": condition}]}));
    let bundle = webhook(json!({"clientConfig": {"caBundle": ROOT}}));
    for (who, manager, object) in [
        (&place.controller, "sluice-controller", conditions),
        (&place.ca, "sluice-ca", bundle),
    ] {
        let api = Api::<MutatingWebhookConfiguration>::all(who.clone());
        let params = PatchParams::apply(manager).force();
        api.patch("sluice-hold", &params, &Patch::Apply(object))
            .await
            .unwrap();
    }
    upgrade("debug");
    let api = Api::<MutatingWebhookConfiguration>::all(place.controller.clone());
    let hold = serde_json::to_value(api.get("sluice-hold").await.unwrap()).unwrap();
    assert_eq!(
        hold["webhooks"][0]["matchConditions"][0]["expression"],
        condition
    );
    assert_eq!(hold["webhooks"][0]["clientConfig"]["caBundle"], ROOT);
    refusal(api.get("sluice-inject").await);
}

/// "root" in base64, which the apiserver does not look into.
const ROOT: &str = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCi0tLS0tRU5EIENFUlRJRklDQVRFLS0tLS0K";

#[tokio::test]
async fn nobody_may_do_what_nobody_needs() {
    let place = Place::new("accounts-rights").await;
    let bad = [
        ("", "secrets", ["get", "list", "watch", "update", "delete"]),
        ("", "nodes", ["get", "list", "patch", "update", "delete"]),
        (
            "",
            "pods/exec",
            ["create", "get", "patch", "update", "delete"],
        ),
        (
            "",
            "services",
            ["create", "patch", "update", "delete", "deletecollection"],
        ),
        (
            "",
            "serviceaccounts/token",
            ["create", "get", "patch", "update", "delete"],
        ),
        (
            "apps",
            "deployments",
            ["create", "update", "delete", "deletecollection", "escalate"],
        ),
        (
            "apps",
            "statefulsets",
            ["create", "update", "patch", "delete", "list"],
        ),
        (
            "rbac.authorization.k8s.io",
            "clusterroles",
            ["create", "update", "patch", "bind", "escalate"],
        ),
        (
            "sluice.dev",
            "meshrollouts",
            ["create", "update", "patch", "delete", "deletecollection"],
        ),
    ];
    for role in ["controller", "serving", "ca"] {
        for (group, resource, verbs) in bad {
            for verb in verbs {
                assert!(
                    !may(&place.admin, role, verb, group, resource).await,
                    "sluice-{role} may {verb} {resource}"
                );
            }
        }
    }
    for role in ["serving", "ca"] {
        for verb in ["create", "update", "patch", "delete"] {
            assert!(
                !may(&place.admin, role, verb, "sluice.dev", "trafficsplits").await,
                "{role}"
            );
        }
    }
    assert!(
        may(
            &place.admin,
            "controller",
            "update",
            "sluice.dev",
            "trafficsplits"
        )
        .await
    );
}

async fn may(admin: &Client, role: &str, verb: &str, group: &str, resource: &str) -> bool {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let review = typed::<SubjectAccessReview>(json!({"metadata": {}, "spec": {
        "user": format!("system:serviceaccount:{SYSTEM}:sluice-{role}"),
        "resourceAttributes": {"namespace": "accounts-rights", "verb": verb, "group": group,
            "resource": resource, "subresource": subresource},
    }}));
    let api = Api::<SubjectAccessReview>::all(admin.clone());
    let answer = api.create(&PostParams::default(), &review).await.unwrap();
    answer.status.unwrap().allowed
}
