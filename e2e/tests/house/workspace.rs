//! The workspace as cargo and the file system show it.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde::Deserialize;

#[derive(Deserialize)]
pub struct Package {
    pub name: String,
    pub manifest_path: PathBuf,
    pub dependencies: Vec<Dependency>,
    pub features: BTreeMap<String, Vec<String>>,
}

#[derive(Deserialize)]
pub struct Dependency {
    pub name: String,
    /// None: needed to run; else `dev` or `build`.
    kind: Option<String>,
    pub optional: bool,
}

impl Dependency {
    pub fn is_normal(&self) -> bool {
        self.kind.is_none()
    }
}

impl Package {
    pub fn folder(&self) -> &Path {
        self.manifest_path.parent().unwrap()
    }

    pub fn relative_folder(&self) -> String {
        self.folder()
            .strip_prefix(root())
            .unwrap()
            .display()
            .to_string()
    }
}

/// A package that is really built.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Built {
    pub name: String,
    pub version: String,
    pub license: String,
}

/// The crates of the workspace.
pub fn crates() -> Vec<Package> {
    #[derive(Deserialize)]
    struct Metadata {
        packages: Vec<Package>,
    }
    let json = cargo(&[
        "metadata",
        "--no-deps",
        "--format-version",
        "1",
        "--offline",
    ]);
    serde_json::from_str::<Metadata>(&json).unwrap().packages
}

/// What `cargo tree` shows: with features resolved as in a build, so without what is merely optional.
pub fn tree(arguments: &[&str]) -> Vec<Built> {
    let mut all = vec!["tree", "--offline", "--target", "x86_64-unknown-linux-gnu"];
    all.extend(["--prefix", "none", "--no-dedupe", "--format", "{p}|{l}"]);
    all.extend(arguments);
    let mut found: Vec<Built> = cargo(&all).lines().filter_map(built).collect();
    found.sort();
    found.dedup();
    found
}

/// `name v1.2.3 (more)|licence`
fn built(line: &str) -> Option<Built> {
    let (package, license) = line.split_once('|')?;
    let mut words = package.split(' ');
    Some(Built {
        name: words.next()?.to_owned(),
        version: words.next()?.trim_start_matches('v').to_owned(),
        license: license.to_owned(),
    })
}

fn cargo(arguments: &[&str]) -> String {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(program)
        .args(arguments)
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "`cargo {}` failed: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// All Rust files that people write.
pub fn rust_files() -> Vec<PathBuf> {
    let mut files = Vec::new();
    for package in crates() {
        for part in ["src", "tests", "benches", "examples"] {
            collect(&package.folder().join(part), &mut files);
        }
    }
    assert!(files.len() > 50, "only {} files were found", files.len());
    files
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("generated") {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// A file of the workspace.
pub fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|why| panic!("{path}: {why}"))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}
