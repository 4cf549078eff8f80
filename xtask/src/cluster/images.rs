//! Making images and objects known to a cluster.

use std::{fs, path::Path, process::Command};

use anyhow::{Result, bail};
use serde_json::Value;

use super::{
    docker, node,
    state::{Cluster, Kind},
};
use crate::{command, image::Image, paths};

impl Cluster {
    /// Makes an image known to the node, unless the node has that very image.
    pub(crate) fn load_image(&self, image: &Image) -> Result<()> {
        let file = image.reference.replace(['/', ':'], "_");
        // Reading a large program takes a second; that its files look unchanged is seen at once.
        let (seen, loaded) = (format!("images/{file}.seen"), format!("images/{file}.id"));
        let looks = image.looks()?;
        if self.has(&seen, &looks) {
            return Ok(());
        }
        let folder = paths::target().join("images");
        fs::create_dir_all(&folder)?;
        fs::create_dir_all(self.file("images"))?;
        let archive = folder.join(format!("{file}-{}.tar", self.name));
        let id = image.write(&archive)?;
        if !self.has(&loaded, &id) {
            self.load_archive(&archive)?;
            self.write(&loaded, id.as_bytes())?;
        }
        self.write(&seen, looks.as_bytes())?;
        fs::remove_file(archive)?;
        Ok(())
    }

    fn has(&self, file: &str, content: &str) -> bool {
        fs::read_to_string(self.file(file)).is_ok_and(|old| old == content)
    }

    /// Makes the images of an archive known to the node.
    pub(crate) fn load_archive(&self, archive: &Path) -> Result<()> {
        match self.kind {
            Kind::Node => {}
            Kind::Docker => return docker::load(self, archive),
            Kind::Api => bail!(
                "cluster `{}` has only an apiserver and runs no images",
                self.name
            ),
        }
        let mut ctr = Command::new("ctr");
        ctr.arg("--address").arg(node::containerd_socket(self));
        ctr.args(["--namespace", "k8s.io", "images", "import"])
            .arg(archive);
        command::output(&mut ctr)?;
        Ok(())
    }

    /// `kubectl apply` of an object or a List.
    pub(crate) fn apply(&self, object: &Value) -> Result<()> {
        let mut kubectl = self.kubectl();
        kubectl.args(["apply", "--server-side", "--force-conflicts", "-f", "-"]);
        command::output_with_input(&mut kubectl, &serde_json::to_vec(object)?)?;
        Ok(())
    }
}
