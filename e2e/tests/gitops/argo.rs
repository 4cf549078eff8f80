//! Argo CD's health checks, as its own test runs them.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::tools::{Verdict, checks, verdicts, workspace};

/// `health_test.yaml`.
#[derive(Deserialize)]
struct Tests {
    tests: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Case {
    health_status: Verdict,
    input_path: String,
}

#[test]
fn every_health_check_says_what_its_tests_say() {
    let mut asked = 0;
    for folder in folders() {
        let kind = folder.file_name().unwrap().to_str().unwrap();
        let tests: Tests = yaml(&folder.join("health_test.yaml"));
        let objects: Vec<Value> = tests
            .tests
            .iter()
            .map(|case| yaml(&folder.join(&case.input_path)))
            .collect();
        let answers = verdicts(&format!("argo-{kind}"), &objects);
        for (case, answer) in tests.tests.iter().zip(answers) {
            let wanted = &case.health_status;
            let path = folder.join(&case.input_path);
            assert_eq!(
                (&answer.argo.status, &answer.argo.message),
                (&wanted.status, &wanted.message),
                "{}",
                path.display()
            );
            asked += 1;
        }
    }
    assert!(asked >= 12, "{asked} cases in {}", checks().display());
}

#[test]
fn no_testdata_is_left_out_of_the_tests() {
    for folder in folders() {
        let tests: Tests = yaml(&folder.join("health_test.yaml"));
        let asked: BTreeSet<PathBuf> = tests
            .tests
            .iter()
            .map(|case| folder.join(&case.input_path))
            .collect();
        let there: BTreeSet<PathBuf> = fs::read_dir(folder.join("testdata"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        assert_eq!(asked, there);
    }
}

/// `UPDATE=1` writes the file anew.
#[test]
fn the_config_map_for_argo_cd_holds_the_very_health_checks() {
    let file = workspace().join("argocd/argocd-cm.yaml");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&file, config_map()).unwrap();
    }
    let map: Value = yaml(&file);
    let scripts: serde_json::Map<String, Value> = folders()
        .into_iter()
        .map(|folder| (key(&folder), json!(script(&folder))))
        .collect();
    assert_eq!(
        map["data"],
        Value::Object(scripts),
        "write it anew with `UPDATE=1 cargo test -p sluice-e2e --test gitops`"
    );
    assert_eq!(map["metadata"]["name"], "argocd-cm");
}

fn config_map() -> String {
    let mut text = "# kubectl apply --server-side -f argocd-cm.yaml\n\
                    # Beside what else is there: it is made from resource_customizations/.\n\
                    apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: argocd-cm\n  namespace: argocd\n\
                    \x20 labels:\n    app.kubernetes.io/name: argocd-cm\n    app.kubernetes.io/part-of: argocd\ndata:\n"
        .to_owned();
    for folder in folders() {
        text += &format!("  {}: |\n", key(&folder));
        for line in script(&folder).lines() {
            let indent = if line.is_empty() { "" } else { "    " };
            text += &format!("{indent}{line}\n");
        }
    }
    text
}

/// As Argo CD looks for it: GROUP_KIND.
fn key(folder: &Path) -> String {
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    let group = name(folder.parent().unwrap());
    format!("resource.customizations.health.{group}_{}", name(folder))
}

fn script(folder: &Path) -> String {
    fs::read_to_string(folder.join("health.lua")).unwrap()
}

/// GROUP/KIND of every health check.
fn folders() -> Vec<PathBuf> {
    let inside = |folder: PathBuf| {
        let entries = fs::read_dir(&folder).unwrap();
        entries.map(|entry| entry.unwrap().path())
    };
    let mut folders: Vec<PathBuf> = inside(checks()).flat_map(inside).collect();
    folders.sort();
    assert!(!folders.is_empty());
    folders
}

fn yaml<T: serde::de::DeserializeOwned>(file: &Path) -> T {
    let text = fs::read_to_string(file).unwrap();
    serde_saphyr::from_str(&text).unwrap_or_else(|why| panic!("{}: {why}", file.display()))
}
