//! The Rust of `src/generated` is what the `.proto` files say. `UPDATE=1 cargo test -p
//! sluice-evidence` writes it anew.

use std::path::Path;

#[test]
fn generated_code_is_what_the_proto_files_say() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = tempfile::tempdir().expect("a temporary folder");
    let protos = [
        "sluice/evidence/v1/evidence.proto",
        "sluice/relay/v1/relay.proto",
    ];
    let descriptors = protox::compile(protos, [root.join("proto")]).expect("valid protos");
    tonic_prost_build::configure()
        .client_mod_attribute(".", "#[cfg(feature = \"grpc\")]")
        .server_mod_attribute(".", "#[cfg(feature = \"grpc\")]")
        .out_dir(out.path())
        .compile_fds(descriptors)
        .expect("generated code");
    for file in ["sluice.evidence.v1.rs", "sluice.relay.v1.rs"] {
        let fresh = std::fs::read_to_string(out.path().join(file)).expect("generated file");
        let kept = root.join("src/generated").join(file);
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&kept, &fresh).expect("write generated code");
        }
        let committed = std::fs::read_to_string(&kept).unwrap_or_default();
        assert!(
            fresh == committed,
            "{file} is stale: run `UPDATE=1 cargo test -p sluice-evidence --test generated`"
        );
    }
}
