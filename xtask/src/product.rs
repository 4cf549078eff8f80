//! The product as it runs in a cluster: static release binaries, and the images made of them.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::{
    cluster::Cluster,
    command,
    image::{self, Image, ImageFile},
    paths, tools,
};

/// The target whose static binaries run in images without any library.
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// Tag of the images, and the chart's `appVersion`.
pub(crate) const TAG: &str = "0.1.0";

/// Builds the operator, the proxy and the driver of the demo, optimised and static: one build
/// whose dependencies all three share.
pub(crate) fn build() -> Result<()> {
    let began = Instant::now();
    let status = release_build(&mut Command::new("cargo"))
        .status()
        .context("cannot start cargo")?;
    if !status.success() {
        bail!("the release build failed; its errors are above");
    }
    println!(
        "operator, proxy and driver built ({:.0} s)",
        began.elapsed().as_secs_f64()
    );
    Ok(())
}

fn release_build(cargo: &mut Command) -> &mut Command {
    cargo
        .args(["build", "--release", "--target", TARGET])
        .args(["--package", "sluice-operator", "--package", "sluice-proxy"])
        .args(["--package", "sluice-e2e"])
        // Given with --target, these flags stay away from build scripts and macros.
        .env(
            "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS",
            "-C target-feature=+crt-static",
        )
        .current_dir(paths::workspace())
        .stdin(Stdio::null())
}

/// The same build, begun while other things wait: it takes what they leave of the processors, and
/// ends with this value. [`build`] waits for it, and tells what went wrong with it.
pub(crate) struct Ahead(Child);

impl Ahead {
    /// Begins.
    pub(crate) fn start() -> Result<Self> {
        let mut patient = Command::new("nice");
        release_build(patient.args(["-n", "19", "cargo"]))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map(Self)
            .context("cannot start nice and cargo")
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        // One that has ended cannot be stopped.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Makes the images known to the cluster's node: the operator, the proxy, and the demo's
/// application.
pub(crate) fn load(cluster: &Cluster) -> Result<()> {
    let build = build_tag()?;
    for tag in [TAG, &build] {
        cluster.load_image(&operator(tag)?)?;
        cluster.load_image(&proxy(tag)?)?;
    }
    cluster.load_image(&Image::of_program("podinfo:6.9.2", &tools::PODINFO.path())?)
}

fn operator(tag: &str) -> Result<Image> {
    Ok(Image {
        reference: format!("sluice/operator:{tag}"),
        entrypoint: vec!["/sluice-operator".to_owned()],
        files: vec![program("/sluice-operator")],
        folders: vec![("/tmp".to_owned(), 0o1777)],
        user: "65532:65532".to_owned(),
    })
}

/// The proxy's image also holds nft, which its `init` writes the redirect with.
fn proxy(tag: &str) -> Result<Image> {
    let nft = command::find("nft").context("nft is missing: apt-get install nftables")?;
    let mut files = vec![program("/sluice-proxy")];
    files.extend(image::with_libraries(&nft)?);
    Ok(Image {
        reference: format!("sluice/proxy:{tag}"),
        entrypoint: vec!["/sluice-proxy".to_owned()],
        files,
        folders: vec![("/tmp".to_owned(), 0o1777)],
        user: "1337:1337".to_owned(),
    })
}

/// A proxy that is no part of any mesh.
pub(crate) fn nginx() -> Result<Image> {
    let nginx = command::find("nginx").context("nginx is missing: apt-get install nginx")?;
    Ok(Image {
        reference: "nginx:debian".to_owned(),
        entrypoint: vec![nginx.display().to_string()],
        files: image::with_libraries(&nginx)?,
        folders: vec![("/tmp".to_owned(), 0o1777)],
        user: "65534:65534".to_owned(),
    })
}

/// A tag that names these very binaries, so that a new build replaces the pods of an old one.
fn build_tag() -> Result<String> {
    let mut hash = Sha256::new();
    for name in ["sluice-operator", "sluice-proxy"] {
        let path = release(name);
        let program = std::fs::read(&path).with_context(|| path.display().to_string())?;
        hash.update(program);
    }
    let digest = format!("{:x}", hash.finalize());
    Ok(format!("{TAG}-{}", &digest[..12]))
}

fn program(path: &str) -> ImageFile {
    ImageFile {
        path: path.to_owned(),
        source: release(path.trim_start_matches('/')),
        mode: 0o755,
    }
}

/// Where a program of [`build`] is.
pub(crate) fn release(name: &str) -> PathBuf {
    paths::target().join(TARGET).join("release").join(name)
}

/// Installs the chart, or brings an installed one up to date, and waits until it is ready.
pub(crate) fn install(cluster: &Cluster) -> Result<()> {
    let tag = build_tag()?;
    command::output(
        cluster
            .helm()
            .args(["upgrade", "--install", "sluice"])
            .arg(paths::workspace().join("charts/sluice"))
            .args(["--namespace", "sluice-system", "--create-namespace"])
            .args(["--set", &format!("image.tag={tag},proxyImage.tag={tag}")])
            .args(["--wait", "--timeout", "120s"]),
    )
    .context("installing charts/sluice")?;
    Ok(())
}
