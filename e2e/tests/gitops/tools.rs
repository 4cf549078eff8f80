//! The programs that these tests ask: kubectl, and what Flux and Argo CD would say of an object.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde::Deserialize;
use serde_json::Value;

use crate::api;

/// What Flux and Argo CD say of an object.
#[derive(Debug, Deserialize)]
pub struct Verdicts {
    /// By kstatus, the library that Flux uses.
    pub kstatus: Verdict,
    /// By our health check, in the interpreter that Argo CD uses.
    pub argo: Verdict,
}

/// What one of them says.
#[derive(Debug, Deserialize)]
pub struct Verdict {
    pub status: String,
    pub message: String,
}

/// The workspace.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Our health checks, laid out as in Argo CD's own repository.
pub fn checks() -> PathBuf {
    workspace().join("argocd/resource_customizations")
}

/// Something that `cargo xtask tools` builds.
pub fn tool(name: &str) -> PathBuf {
    let folder = std::env::var_os("SLUICE_TOOLS")
        .map_or_else(|| workspace().join("target/tools"), PathBuf::from);
    let path = folder.join(name);
    assert!(
        path.exists(),
        "{} is missing: build it with `cargo xtask tools`, or set SLUICE_TOOLS to the folder where it is",
        path.display()
    );
    path
}

/// Asks both tools about objects, one after the other. `name` tells calls of several tests apart.
pub fn verdicts(name: &str, objects: &[Value]) -> Vec<Verdicts> {
    let lines: String = objects.iter().map(|o| format!("{o}\n")).collect();
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.jsonl"));
    fs::write(&file, lines).unwrap();
    let output = Command::new(tool("health"))
        .arg("-checks")
        .arg(checks())
        .stdin(File::open(&file).unwrap())
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {complaint}");
    let told = String::from_utf8(output.stdout).unwrap();
    let verdicts: Vec<Verdicts> = told
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(verdicts.len(), objects.len());
    verdicts
}

/// Runs kubectl as administrator; what it prints.
pub fn kubectl(arguments: &[&str]) -> String {
    let output = Command::new(tool("kubernetes"))
        .arg("kubectl")
        .args(["--kubeconfig", &api::kubeconfig()])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "kubectl {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}
