//! What is applied a second time changes nothing: every manifest that teams copy, and the chart.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::Value;
use sluice_e2e::{files, helm};

use crate::{
    api,
    place::Place,
    tools::{kubectl, tool, workspace},
};

/// Ways to apply: as kubectl does, and as Flux and Argo CD do.
const WAYS: [&[&str]; 2] = [&[], &["--server-side", "--force-conflicts"]];

/// Manifests, as kubectl is told about them: `-k FOLDER` or `-f FILE`.
type Manifests<'a> = [&'a str; 2];

#[tokio::test]
async fn a_second_apply_of_every_example_is_no_diff() {
    // The CRDs come with it.
    Place::new("gitops-applies").await;
    for flux in ["source-controller", "kustomize-controller"] {
        let crds = tool("crds").join(flux).display().to_string();
        kubectl(&["apply", "--server-side", "--force-conflicts", "-f", &crds]);
    }
    kubectl(&[
        "wait",
        "--for=condition=Established",
        "--timeout=30s",
        "crd",
        "--all",
    ]);
    let namespace = temporary(
        "flux-system.yaml",
        "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: flux-system\n",
    );
    kubectl(&["apply", "-f", &namespace]);

    let examples = workspace().join("examples");
    let path = |relative: &str| examples.join(relative).display().to_string();
    let mut objects = 0;
    for folder in ["gitops/apps/demo", "two-deployments"] {
        objects += unchanged_by_a_second_apply(["-k", &path(folder)]);
    }
    objects += unchanged_by_a_second_apply(["-f", &path("gitops/flux/sync.yaml")]);
    // Argo CD's own kind is unknown here: its Application is read by nobody.
    let all = files::below(&examples, "yaml")
        .iter()
        .filter(|file| !file.ends_with("kustomization.yaml"))
        .filter(|file| !file.ends_with("argocd/application.yaml"))
        .map(|file| fs::read_to_string(file).unwrap())
        .map(|text| serde_saphyr::from_multiple::<Value>(&text).unwrap().len())
        .sum::<usize>();
    assert_eq!(objects, all, "an object of the examples is in no apply");
}

#[tokio::test]
async fn a_second_install_of_the_chart_is_no_diff_and_so_is_a_second_apply_of_its_objects() {
    Place::new("gitops-chart").await;
    let rendered = helm::render(&[]).unwrap();
    let file = temporary("chart.yaml", &rendered);
    upgrade();
    let first = versions(["-f", &file]);
    upgrade();
    assert_eq!(versions(["-f", &file]), first);
    unchanged_by_a_second_apply(["-f", &file]);
}

fn upgrade() {
    // The tests bring their own CRDs.
    helm::upgrade(&api::kubeconfig(), &[]).unwrap_or_else(|why| panic!("{why}"));
}

/// How many objects it was.
fn unchanged_by_a_second_apply(manifests: Manifests) -> usize {
    let mut objects = 0;
    for way in WAYS {
        let apply = [&["apply"][..], way, &manifests].concat();
        kubectl(&apply);
        let first = versions(manifests);
        kubectl(&apply);
        assert_eq!(versions(manifests), first, "kubectl {}", apply.join(" "));
        objects = first.len();
    }
    objects
}

/// The resourceVersion of each object: what changes with any write.
fn versions(manifests: Manifests) -> BTreeMap<String, String> {
    let arguments = [&["get", "--output=json"][..], &manifests].concat();
    let list: Value = serde_json::from_str(&kubectl(&arguments)).unwrap();
    let items = list["items"].as_array().unwrap().iter();
    items
        .map(|object| {
            let meta = &object["metadata"];
            let name = format!("{} {}/{}", object["kind"], meta["namespace"], meta["name"]);
            (name, meta["resourceVersion"].to_string())
        })
        .collect()
}

fn temporary(name: &str, content: &str) -> String {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("gitops-{name}"));
    fs::write(&file, content).unwrap();
    file.display().to_string()
}
