//! An image's documents and the texts in them: manifest, configuration, digest, user, `dev.berth.app`.

use berth_agent::image::{configuration, layers_named};
use berth_wire::digest::Digest;
use berth_wire::image::{AppManifest, ImageRef};
use oci_spec::image::ImageConfiguration;

use crate::{Target, target, texts};

pub const TARGETS: &[Target] = &[
    target("manifest", manifest, manifests),
    target("configuration", configuration_document, configurations),
    target("user", user, users),
    target("digest", digest, digests),
];

fn manifest(input: &[u8]) {
    if let Ok(layers) = layers_named(input) {
        assert!(layers.len() <= input.len());
        for (digest, _) in layers {
            check_digest(&digest);
        }
    }
    let _ = serde_json::from_slice::<ImageRef>(input);
}

fn configuration_document(input: &[u8]) {
    if let Ok(manifest) = serde_json::from_slice::<AppManifest>(input) {
        let again = serde_json::to_vec(&manifest).unwrap();
        assert_eq!(serde_json::from_slice::<AppManifest>(&again).unwrap(), manifest);
    }
    let Ok(config) = serde_json::from_slice::<ImageConfiguration>(input) else { return };
    assert!(configuration::cwd(&config).starts_with('/'));
    assert!(configuration::env(&config).keys().all(|key| !key.is_empty() && !key.contains('=')));
    assert!(configuration::argv(&config).iter().map(String::len).sum::<usize>() <= input.len());
    match configuration::user(&config) {
        Ok((user, group)) => assert!(user < 65_535 && group < 65_535),
        Err(sentence) => {
            assert!(sentence.len() < 1_000 && !sentence.chars().any(char::is_control), "{sentence:?}")
        }
    }
}

fn user(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let Some((user, group)) = configuration::parse_user(&text) else { return };
    assert!(user < 65_535 && group < 65_535);
    // Nothing but what it means, whatever else a C library would have read in it.
    assert!(text.bytes().all(|byte| byte.is_ascii_digit() || byte == b':'), "{text:?}");
    assert_eq!(configuration::parse_user(&format!("{user}:{group}")), Some((user, group)));
}

fn digest(input: &[u8]) {
    if let Ok(digest) = String::from_utf8_lossy(input).parse::<Digest>() {
        check_digest(&digest);
        assert_eq!(digest.as_str().as_bytes(), input);
    }
}

/// It becomes a file's name.
fn check_digest(digest: &Digest) {
    assert_eq!(digest.hex().len(), 64);
    assert!(digest.hex().bytes().all(|byte| byte.is_ascii_hexdigit() && !byte.is_ascii_uppercase()));
}

fn manifests() -> Vec<Vec<u8>> {
    let digest = Digest::of(b"x");
    let one = format!(
        r#"{{"digest": "{digest}", "size": 5, "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip"}}"#
    );
    texts(&[
        &format!(r#"{{"schemaVersion": 2, "config": {one}, "layers": [{one}, {one}]}}"#),
        &format!(
            r#"{{"manifests": [{{"digest": "{digest}", "size": 1, "platform": {{"os": "linux", "architecture": "amd64"}}}}]}}"#
        ),
        &format!(r#"{{"repository": "apps/one", "digest": "{digest}"}}"#),
    ])
}

fn configurations() -> Vec<Vec<u8>> {
    texts(&[
        r#"{"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": ["sha256:1"]}, "config": {"User": "1000:1000",
            "Env": ["PATH=/bin", "=x", "A"], "WorkingDir": "/app", "Entrypoint": ["/bin/sh"], "Cmd": ["-c", "true"],
            "Volumes": {"/data": {}}, "ExposedPorts": {"80/tcp": {}}, "StopSignal": "SIGTERM", "Labels": {"a": "b"}}}"#,
        r#"{"pack": "python", "processes": {"web": "x", "worker": "y"}, "env": {"A": "b"}, "health": {"http_path": "/"}, "notes": ["n"]}"#,
    ])
}

fn users() -> Vec<Vec<u8>> {
    texts(&["0", "1000", "1000:1000", "65534:0", "root", "app:app", ":", "+1", "00000000000000000001"])
}

fn digests() -> Vec<Vec<u8>> {
    texts(&[Digest::of(b"x").as_str(), "sha512:00", "sha256:../../../etc/passwd"])
}
