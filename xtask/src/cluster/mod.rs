//! A real Kubernetes on this machine: no Docker, no image registry, no way out to any network.
//!
//! Two kinds of our own. A *node* has everything, pods included; it lives in a network namespace of its own, joined to
//! the host by one veth pair. An *api* cluster is etcd and the apiserver only, on loopback ports, and needs
//! no root: enough for everything that talks to Kubernetes and nothing that runs on it. With controllers,
//! Deployments there also get their ReplicaSets and pods, which nobody runs. A third is made by kind, in Docker,
//! for who asks for it.
//!
//! All state is in `target/cluster/NAME` and, because socket paths are short, in `/run/sluice/NAME`. Every
//! process of a node is in the cgroup `sluice-NAME`, so that taking it down needs no memory of what was started.

mod audit;
mod cgroup;
mod check;
mod control_plane;
mod dns;
mod docker;
mod down;
mod flux;
mod images;
mod kubeconfig;
mod network;
mod node;
mod pki;
mod process;
mod state;
mod status;
mod up;

use std::{os::unix::process::CommandExt, path::PathBuf};

use anyhow::{Context, Result};
use clap::{Args, Subcommand, ValueEnum};

pub(crate) use self::{
    docker::ensure_there as ensure_kind_and_docker,
    down::down,
    state::{Cluster, Kind},
    up::up,
};
use crate::{
    image::{self, Image, ImageFile},
    tools,
};

/// Start, stop and look at a Kubernetes cluster on this machine.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Start a cluster, or what has died of it
    Up {
        #[command(flatten)]
        target: Target,
        /// Only etcd and the apiserver, on loopback ports, without root
        #[arg(long)]
        api_only: bool,
        #[command(flatten)]
        with: With,
    },
    /// Stop a cluster and remove all of it
    Down {
        #[command(flatten)]
        target: Target,
    },
    /// Show what runs
    Status {
        #[command(flatten)]
        target: Target,
        #[arg(short, long, value_enum, default_value_t = Format::Table)]
        output: Format,
    },
    /// Prove that pods, DNS, NodePorts, exec, logs, native sidecars and Flux work
    Check {
        #[command(flatten)]
        target: Target,
    },
    /// Make images known to a node: archives, or one made on the spot of static programs
    Load {
        #[command(flatten)]
        target: Target,
        /// Image archives (docker or OCI)
        archives: Vec<PathBuf>,
        /// Name and tag of an image to make
        #[arg(long, requires = "files", conflicts_with = "archives")]
        image: Option<String>,
        /// A file of that image: /path/in/image=/path/on/host. The first is the entrypoint
        #[arg(long = "file", id = "files", requires = "image")]
        files: Vec<String>,
        /// A dynamic program of this machine that goes into that image with its libraries
        #[arg(long = "program", requires = "image")]
        programs: Vec<PathBuf>,
    },
    /// Run kubectl as administrator
    Kubectl {
        #[command(flatten)]
        target: Target,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Run Helm as administrator
    Helm {
        #[command(flatten)]
        target: Target,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Run a program in the cluster's network, where pods and Services are reached
    Enter {
        #[command(flatten)]
        target: Target,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<String>,
    },
    /// Kill one component; `up` starts it again
    Stop {
        #[command(flatten)]
        target: Target,
        component: String,
    },
    /// Print the path of the administrator's kubeconfig
    Kubeconfig {
        #[command(flatten)]
        target: Target,
    },
}

/// What a cluster has beside its kind's own.
#[derive(Args, Clone, Copy, Default)]
pub(crate) struct With {
    /// Also Flux and a git server
    #[arg(long = "with-flux", id = "with_flux")]
    pub(crate) flux: bool,
    /// Also the controller-manager, which a node always has
    #[arg(long = "with-controllers", id = "with_controllers")]
    pub(crate) controllers: bool,
}

/// Which cluster.
#[derive(Args)]
pub(crate) struct Target {
    /// Name of the cluster [default: demo, or api with --api-only]
    #[arg(long, env = "SLUICE_CLUSTER")]
    name: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Format {
    Table,
    Json,
}

impl Target {
    fn name(&self) -> &str {
        self.name.as_deref().unwrap_or("demo")
    }
}

/// Does what the command says.
pub(crate) fn run(command: Command) -> Result<()> {
    match command {
        Command::Up {
            target,
            api_only,
            with,
        } => {
            let kind = if api_only { Kind::Api } else { Kind::Node };
            let name = target.name.as_deref().unwrap_or(kind.default_name());
            up(name, kind, with)?;
            Ok(())
        }
        Command::Down { target } => down(target.name()),
        Command::Status { target, output } => status::print(target.name(), output),
        Command::Check { target } => check::check(target.name()),
        Command::Load {
            target,
            archives,
            image,
            files,
            programs,
        } => {
            let cluster = Cluster::open(target.name())?;
            for archive in archives {
                cluster.load_archive(&archive)?;
            }
            match image {
                Some(reference) => cluster.load_image(&image_of(reference, &files, &programs)?),
                None => Ok(()),
            }
        }
        Command::Kubectl { target, arguments } => {
            become_command(Cluster::open(target.name())?.kubectl().args(arguments))
        }
        Command::Helm { target, arguments } => {
            tools::ensure(&[&tools::HELM])?;
            become_command(Cluster::open(target.name())?.helm().args(arguments))
        }
        Command::Enter { target, command } => {
            let cluster = Cluster::open(target.name())?;
            become_command(cluster.in_network(command[0].as_ref()).args(&command[1..]))
        }
        Command::Stop { target, component } => Cluster::open(target.name())?.stop(&component),
        Command::Kubeconfig { target } => {
            println!("{}", Cluster::open(target.name())?.kubeconfig().display());
            Ok(())
        }
    }
}

/// Replaces this process, so that terminals, signals and exit codes are the command's own.
fn become_command(command: &mut std::process::Command) -> Result<()> {
    let error = command.exec();
    Err(error).with_context(|| format!("cannot run {command:?}"))
}

fn image_of(reference: String, files: &[String], programs: &[PathBuf]) -> Result<Image> {
    let mut files: Vec<ImageFile> = files
        .iter()
        .map(|file| image_file(file))
        .collect::<Result<_>>()?;
    let entrypoint = files.iter().take(1).map(|file| file.path.clone()).collect();
    for program in programs {
        for file in image::with_libraries(program)? {
            // Two programs often load the same library.
            if !files.iter().any(|other| other.path == file.path) {
                files.push(file);
            }
        }
    }
    Ok(Image {
        reference,
        entrypoint,
        files,
        folders: vec![("/tmp".to_owned(), 0o1777)],
        user: String::new(),
    })
}

fn image_file(argument: &str) -> Result<ImageFile> {
    let (path, source) = argument
        .split_once('=')
        .with_context(|| format!("`{argument}` should be /path/in/image=/path/on/host"))?;
    Ok(ImageFile {
        path: format!("/{}", path.trim_start_matches('/')),
        source: source.into(),
        mode: 0o755,
    })
}
