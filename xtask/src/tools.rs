//! Programs that are made from Go modules: Kubernetes, Flux, Helm and what else a test cluster needs.
//!
//! Each has a folder in `e2e/modules` that pins its versions, and lands in `target/tools/NAME` next to a
//! stamp of what it was made from, so that it is built again only when that has changed. What two of them
//! need has one version in both: Go then compiles it once.

use std::{
    fs::{self, File},
    io::IsTerminal,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::{command, paths};

/// A program and how to build it.
pub(crate) struct Tool {
    /// Name of the program, and of its folder in `e2e/modules`.
    pub(crate) name: &'static str,
    package: &'static str,
    /// What is written into the program, most often its version.
    ldflags: &'static str,
    /// The Go module whose `config/crd/bases` are copied beside the program.
    crds: Option<&'static str>,
}

const fn tool(name: &'static str, package: &'static str) -> Tool {
    Tool {
        name,
        package,
        ldflags: "",
        crds: None,
    }
}

/// Everything of Kubernetes and etcd in one program, told apart by its first argument.
pub(crate) const KUBERNETES: Tool = Tool {
    ldflags: "-X k8s.io/component-base/version.gitVersion=v1.34.4 \
              -X k8s.io/component-base/version.gitMajor=1 \
              -X k8s.io/component-base/version.gitMinor=34",
    ..tool("kubernetes", ".")
};
/// Flux: git to artifacts.
pub(crate) const SOURCE_CONTROLLER: Tool = Tool {
    crds: Some("github.com/fluxcd/source-controller"),
    ..tool("source-controller", "github.com/fluxcd/source-controller")
};
/// Flux: artifacts to the cluster.
pub(crate) const KUSTOMIZE_CONTROLLER: Tool = Tool {
    crds: Some("github.com/fluxcd/kustomize-controller"),
    ..tool(
        "kustomize-controller",
        "github.com/fluxcd/kustomize-controller",
    )
};
/// Helm, for our chart.
pub(crate) const HELM: Tool = Tool {
    ldflags: "-X helm.sh/helm/v3/internal/version.version=v3.19.5",
    ..tool("helm", "helm.sh/helm/v3/cmd/helm")
};
/// Cluster DNS.
pub(crate) const COREDNS: Tool = tool("coredns", ".");
/// A demo application made by others.
pub(crate) const PODINFO: Tool = tool("podinfo", "github.com/stefanprodan/podinfo/cmd/podinfo");
/// Serves bare repositories over HTTP.
pub(crate) const GITSERVER: Tool = tool("gitserver", ".");
/// Makes the keys and certificates of a cluster.
pub(crate) const CERTIFICATES: Tool = tool("certificates", ".");
/// Holds the namespaces of a pod.
pub(crate) const PAUSE: Tool = tool("pause", ".");
/// What Flux and Argo CD would say of an object.
pub(crate) const HEALTH: Tool = tool("health", ".");

/// Every tool, the slowest to build first.
pub(crate) const ALL: [&Tool; 10] = [
    &KUBERNETES,
    &SOURCE_CONTROLLER,
    &COREDNS,
    &KUSTOMIZE_CONTROLLER,
    &HELM,
    &PODINFO,
    &HEALTH,
    &GITSERVER,
    &CERTIFICATES,
    &PAUSE,
];

impl Tool {
    /// Where the program is, once built.
    pub(crate) fn path(&self) -> PathBuf {
        folder().join(self.name)
    }

    /// Where the CRDs of the program are, once built.
    pub(crate) fn crds_path(&self) -> PathBuf {
        folder().join("crds").join(self.name)
    }

    fn stamp_path(&self) -> PathBuf {
        folder().join(format!("{}.stamp", self.name))
    }

    fn log_path(&self) -> PathBuf {
        folder().join(format!("{}.log", self.name))
    }

    fn linker_flags(&self) -> String {
        format!("-s -w {}", self.ldflags)
    }

    fn is_built(&self, stamp: &str) -> bool {
        self.path().exists() && fs::read_to_string(self.stamp_path()).is_ok_and(|old| old == stamp)
    }
}

/// Builds those of the tools that are missing or out of date.
pub(crate) fn ensure(tools: &[&Tool]) -> Result<()> {
    fs::create_dir_all(folder())?;
    // Two commands at once must not write the same program.
    let lock = File::create(folder().join(".lock"))?;
    lock.lock()?;
    for tool in tools {
        let module = paths::module(tool.name);
        let flags = [tool.package, &tool.linker_flags()].join("\n");
        let stamp = stamp(&module, &flags)?;
        if !tool.is_built(&stamp) {
            build(tool, &module)?;
            fs::write(tool.stamp_path(), stamp)?;
        }
    }
    Ok(())
}

/// Where the tools are, each by its name, and their CRDs in `crds/NAME`.
pub(crate) fn folder() -> PathBuf {
    paths::target().join("tools")
}

/// A hash over the names and contents of a module's files and the flags of its build.
fn stamp(module: &Path, flags: &str) -> Result<String> {
    let mut files: Vec<PathBuf> = fs::read_dir(module)
        .with_context(|| format!("cannot read {}", module.display()))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    files.sort();
    let mut hash = Sha256::new();
    hash.update(flags);
    for file in files {
        let name = file.file_name().unwrap_or_default().as_encoded_bytes();
        let content = fs::read(&file)?;
        for part in [name, &content] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
    }
    Ok(format!("{:x}", hash.finalize()))
}

fn build(tool: &Tool, module: &Path) -> Result<()> {
    let log = File::create(tool.log_path())?;
    let child = go(module)?
        // Debug information is made for every package, and thrown away by the linker's -w.
        .args(["build", "-trimpath", "-gcflags=all=-dwarf=false"])
        .args(["-ldflags", &tool.linker_flags(), "-o"])
        .arg(tool.path())
        .arg(tool.package)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("cannot start `go build`")?;
    wait_with_progress(tool, child)?;
    if let Some(source) = tool.crds {
        copy_crds(tool, module, source)?;
    }
    Ok(())
}

fn wait_with_progress(tool: &Tool, mut child: Child) -> Result<()> {
    let start = Instant::now();
    let live = std::io::stdout().is_terminal();
    println!(
        "building {} (minutes the first time; log: {})",
        tool.name,
        tool.log_path().display()
    );
    let mut shown = 0;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        let seconds = start.elapsed().as_secs();
        if live && seconds > shown {
            print!("\r  {} s", seconds);
            std::io::Write::flush(&mut std::io::stdout())?;
            shown = seconds;
        }
        if !live && seconds >= shown + 30 {
            println!("  {}: {} s", tool.name, seconds);
            shown = seconds;
        }
        thread::sleep(Duration::from_millis(50));
    };
    if live {
        print!("\r");
    }
    if !status.success() {
        bail!(
            "building {} failed; the end of {}:\n{}",
            tool.name,
            tool.log_path().display(),
            command::tail(&tool.log_path(), 20)
        );
    }
    println!(
        "  built {} in {:.1} s",
        tool.name,
        start.elapsed().as_secs_f32()
    );
    Ok(())
}

/// CRDs come from the very module that the program was made from, so they always fit it.
fn copy_crds(tool: &Tool, module: &Path, source: &str) -> Result<()> {
    let found = command::output(go(module)?.args(["list", "-m", "-f", "{{.Dir}}", source]))?;
    let bases = Path::new(found.trim()).join("config/crd/bases");
    let folder = tool.crds_path();
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    for entry in fs::read_dir(&bases).with_context(|| format!("no CRDs in {}", bases.display()))? {
        let entry = entry?;
        // Not `fs::copy`: files of the module cache are read-only, and would stay so.
        fs::write(folder.join(entry.file_name()), fs::read(entry.path())?)?;
    }
    Ok(())
}

fn go(module: &Path) -> Result<Command> {
    let program =
        command::find("go").context("Go is missing; install Go 1.26 or newer from go.dev/dl")?;
    let mut go = Command::new(program);
    go.current_dir(module)
        .env("CGO_ENABLED", "0")
        .env("GOWORK", "off")
        .env("GOFLAGS", "-buildvcs=false")
        // The compiler's garbage is collected less often: it has gigabytes, and minutes to win.
        .env("GOGC", "400");
    Ok(go)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    #[test]
    fn a_stamp_changes_with_names_contents_and_flags_only() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("main.go");
        fs::write(&file, "package main")?;
        let first = stamp(folder.path(), "-s")?;
        assert_eq!(first, stamp(folder.path(), "-s")?);
        assert_ne!(first, stamp(folder.path(), "-w")?);

        fs::write(&file, "package other")?;
        assert_ne!(first, stamp(folder.path(), "-s")?);

        fs::rename(&file, folder.path().join("other.go"))?;
        fs::write(folder.path().join("other.go"), "package main")?;
        assert_ne!(first, stamp(folder.path(), "-s")?);
        Ok(())
    }

    /// What a `go.mod` asks for, as `PATH VERSION`; what is replaced, by what it is replaced with.
    fn versions(go_mod: &str) -> BTreeMap<&str, &str> {
        let mut versions = BTreeMap::new();
        let mut replaced = BTreeMap::new();
        for line in go_mod.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                ["replace", path, "=>", _, version] | [path, "=>", _, version] => {
                    replaced.insert(path, version);
                }
                ["require", path, version, ..] | [path, version, ..]
                    if version.starts_with('v') =>
                {
                    versions.insert(path, version);
                }
                _ => {}
            }
        }
        for (path, version) in replaced {
            versions.entry(path).and_modify(|old| *old = version);
        }
        versions
    }

    #[test]
    fn the_modules_agree_on_the_version_of_all_that_they_share() -> Result<()> {
        let mut asked: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for tool in ALL {
            let text = fs::read_to_string(paths::module(tool.name).join("go.mod"))?;
            for (path, version) in versions(&text) {
                let versions = asked.entry(path.to_owned()).or_default();
                versions.insert(version.to_owned());
            }
        }
        assert!(asked.len() > 400, "only {} are asked for", asked.len());
        asked.retain(|_, versions| versions.len() > 1);
        assert!(
            asked.is_empty(),
            "these are compiled more than once; `go get PATH@VERSION` in each module: {asked:#?}"
        );
        Ok(())
    }

    #[test]
    fn every_tool_has_a_module() {
        for tool in ALL {
            let module = paths::module(tool.name);
            assert!(
                module.join("go.mod").exists(),
                "{} is missing",
                module.display()
            );
        }
    }
}
