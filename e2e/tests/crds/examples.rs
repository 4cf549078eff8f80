//! What teams copy is accepted as it stands.

use std::path::{Path, PathBuf};

use serde_json::Value;
use sluice_e2e::files;

use crate::place::Place;

/// Flux's, Argo CD's and Kustomize's own kinds are unknown to a bare apiserver.
const FOREIGN: [&str; 3] = ["fluxcd.io", "argoproj.io", "kustomize.config.k8s.io"];

#[tokio::test]
async fn every_object_of_the_examples_is_accepted_with_no_unknown_field() {
    let place = Place::new("crds-examples").await;
    let mut rollouts = 0;
    for file in files::below(&workspace().join("examples"), "yaml") {
        let text = std::fs::read_to_string(&file).unwrap();
        for document in serde_saphyr::from_multiple::<Value>(&text).unwrap() {
            let version = document["apiVersion"].as_str().unwrap();
            let foreign = FOREIGN.iter().any(|group| version.contains(group));
            if foreign || document["kind"] == "Namespace" {
                continue;
            }
            let tried = place.try_out(&document.to_string()).await;
            tried.unwrap_or_else(|why| panic!("{}: {why}", file.display()));
            rollouts += usize::from(document["kind"] == "MeshRollout");
        }
    }
    assert_eq!(rollouts, 2, "one for each mode");
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

#[tokio::test]
async fn the_rollout_in_the_readme_is_accepted_as_it_stands() {
    let place = Place::new("bookinfo").await;
    let readme = std::fs::read_to_string(workspace().join("README.md")).unwrap();
    let yaml: Vec<&str> = readme
        .split("```yaml\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap())
        .collect();
    assert_eq!(yaml.len(), 1);
    place.try_out(yaml[0]).await.unwrap();
}
