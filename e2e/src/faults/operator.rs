//! The operator's roles as processes of their own, which can be killed, stopped and started anew.

use std::{
    fs::{File, OpenOptions},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
};

use anyhow::{Context, Result};
use parking_lot::Mutex;

/// A role to be run.
#[derive(Debug, Clone)]
pub struct Role {
    /// `controller`, `serving` or `ca`, with its own flags.
    pub arguments: Vec<String>,
    /// POD_NAME.
    pub pod: String,
    /// POD_IP: a loopback address.
    pub ip: String,
    /// Its kubeconfig.
    pub kubeconfig: PathBuf,
    /// Port of its metrics.
    pub telemetry_port: u16,
    /// Where its log goes.
    pub log: PathBuf,
}

/// A process of the operator; it ends with the last handle.
#[derive(Clone)]
pub struct Process {
    role: Role,
    child: Arc<Mutex<Option<Running>>>,
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // One that has ended meanwhile is what we want.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    /// Starts it.
    ///
    /// # Errors
    /// The program is not built.
    pub fn start(role: Role) -> Result<Self> {
        let process = Self {
            role,
            child: Arc::default(),
        };
        process.again()?;
        Ok(process)
    }

    /// Starts it anew under the same pod name, as a kubelet would start its container.
    ///
    /// # Errors
    /// The program is not built.
    pub fn again(&self) -> Result<()> {
        let mut child = self.child.lock();
        *child = None;
        let log = append(&self.role.log)?;
        let program = program();
        let started = Command::new(&program)
            .args(&self.role.arguments)
            .args(["--pod-name", &self.role.pod, "--pod-ip", &self.role.ip])
            .args(["--telemetry-port", &self.role.telemetry_port.to_string()])
            .env("KUBECONFIG", &self.role.kubeconfig)
            .env("RUST_LOG", log_filter())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| {
                format!(
                    "cannot start {}: `cargo build -p sluice-operator`",
                    program.display()
                )
            })?;
        *child = Some(Running(started));
        Ok(())
    }

    /// SIGKILL; it has ended when this returns.
    pub fn kill(&self) {
        *self.child.lock() = None;
    }

    /// Whether it runs.
    #[must_use]
    pub fn runs(&self) -> bool {
        let mut child = self.child.lock();
        child
            .as_mut()
            .is_some_and(|running| matches!(running.0.try_wait(), Ok(None)))
    }

    /// SIGSTOP: it does nothing until [`Self::go_on`], and does not know it.
    ///
    /// # Errors
    /// It does not run.
    pub fn stop(&self) -> Result<()> {
        self.signal("-STOP")
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// It does not run.
    pub fn go_on(&self) -> Result<()> {
        self.signal("-CONT")
    }

    fn signal(&self, signal: &str) -> Result<()> {
        let child = self.child.lock();
        let running = child.as_ref().context("it does not run")?;
        let sent = Command::new("kill")
            .args([signal, &running.0.id().to_string()])
            .status()?;
        anyhow::ensure!(sent.success(), "kill {signal} failed");
        Ok(())
    }

    /// Its process id; none when it has been killed.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.child.lock().as_ref().map(|running| running.0.id())
    }

    /// The pod's name.
    #[must_use]
    pub fn pod(&self) -> &str {
        &self.role.pod
    }

    /// Where it tells its metrics, on loopback.
    #[must_use]
    pub fn telemetry_port(&self) -> u16 {
        self.role.telemetry_port
    }

    /// Everything that it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.role.log).unwrap_or_default()
    }
}

fn append(path: &Path) -> Result<File> {
    let opened = OpenOptions::new().create(true).append(true).open(path);
    opened.with_context(|| format!("cannot write {}", path.display()))
}

/// What it logs: RUST_LOG where it is set, as for measurements; else also what helps to find out
/// why a test has failed.
fn log_filter() -> String {
    std::env::var("RUST_LOG").unwrap_or_else(|_| "info,sluice_operator=debug".to_owned())
}

/// The debug build of the operator, unless SLUICE_OPERATOR names another.
fn program() -> PathBuf {
    std::env::var_os("SLUICE_OPERATOR").map_or_else(
        || {
            let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
            workspace.join("target/debug/sluice-operator")
        },
        PathBuf::from,
    )
}
