//! The way to a real apiserver.

use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

/// Path of the kubeconfig.
pub fn kubeconfig() -> String {
    std::env::var("SLUICE_API_KUBECONFIG").expect(
        "SLUICE_API_KUBECONFIG is not set: start an apiserver with `cargo xtask cluster up --api-only` \
         and set it to the path that is printed",
    )
}

/// The way to the apiserver, as its administrator.
pub async fn config() -> Config {
    let file = Kubeconfig::read_from(kubeconfig()).unwrap();
    Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
        .await
        .unwrap()
}

/// A client of its administrator.
pub async fn client() -> Client {
    Client::try_from(config().await).unwrap()
}
