//! Running Helm on our chart.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// The folder of the chart.
#[must_use]
pub fn chart() -> String {
    workspace().join("charts/sluice").display().to_string()
}

/// What `helm template` makes of the chart, or why it does not.
///
/// # Errors
/// What Helm complains of.
pub fn render(arguments: &[&str]) -> Result<String, String> {
    let chart = chart();
    let mut all = vec!["template", "sluice", &chart];
    // What a Helm that was built without a version takes for the cluster's is older than ours needs.
    all.extend(["--namespace", "sluice-system", "--kube-version", "1.34.4"]);
    all.extend(arguments);
    helm(&all)
}

/// The documents of a rendered chart.
///
/// # Panics
/// One of them is no YAML.
#[must_use]
pub fn parse(rendered: &str) -> Vec<Value> {
    rendered
        .split("\n---\n")
        .map(|document| {
            serde_saphyr::from_str::<Value>(document)
                .unwrap_or_else(|why| panic!("{why}\n{document}"))
        })
        .filter(|document| !document.is_null())
        .collect()
}

/// Installs the chart without its CRDs, or brings it up to date. `arguments` come last.
///
/// # Errors
/// What Helm complains of.
pub fn upgrade(kubeconfig: &str, arguments: &[&str]) -> Result<String, String> {
    let chart = chart();
    let mut all = vec!["upgrade", "--install", "sluice", &chart];
    all.extend(["--kubeconfig", kubeconfig]);
    all.extend(["--namespace", "sluice-system", "--create-namespace"]);
    all.extend(["--set", "crds.install=false"]);
    all.extend(arguments);
    helm(&all)
}

/// Runs Helm; its output, or what it complains of.
///
/// # Errors
/// What Helm complains of.
///
/// # Panics
/// There is no Helm.
pub fn helm(arguments: &[&str]) -> Result<String, String> {
    let home = workspace().join("target/helm-home");
    let output = Command::new(program())
        .args(arguments)
        .env("HELM_CACHE_HOME", home.join("cache"))
        .env("HELM_CONFIG_HOME", home.join("config"))
        .env("HELM_DATA_HOME", home.join("data"))
        .output()
        .map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    Err(format!("{}{}", text(&output.stdout), text(&output.stderr)))
}

fn program() -> PathBuf {
    let path = std::env::var_os("SLUICE_HELM")
        .map_or_else(|| workspace().join("target/tools/helm"), PathBuf::from);
    assert!(
        path.exists(),
        "there is no Helm at {}: build it with `cargo xtask tools`, or set SLUICE_HELM to yours",
        path.display()
    );
    path
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
