//! What a step sees besides images, layers and the source: the packs' programs, the operator's CA bundle, and the inputs of
//! a shared step. Each is a directory of the host that becomes a read-only layer of the step's root and of nothing else, so
//! that nothing of it can end up in the layer that the step makes. Config vars never come this way: see [`config_tar`].

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use berth_wire::digest::Digest;

use super::manifest::APP_USER;

/// Where the packs are inside a build container.
pub const PACKS_DIR: &str = "/berth/packs";
/// The CA bundle that everything in the stack trusts.
pub const CA_BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";
/// Names under which the programs of a build look for it. The stack's own file is in its place already; these are for
/// those that bring a bundle of their own along.
const CA_VARIABLES: [&str; 7] = [
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
    "PIP_CERT",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "npm_config_cafile",
];

/// The directories of one build; removed when it is dropped.
#[derive(Debug)]
pub struct Stage {
    dir: PathBuf,
    tools: PathBuf,
}

impl Stage {
    /// Lays out the packs and the CA bundle below `dir`, which must not exist yet.
    ///
    /// # Errors
    /// Packs or a bundle that cannot be read, a directory that cannot be written.
    pub fn new(dir: PathBuf, packs: &Path, ca_bundle: Option<&Path>) -> io::Result<Self> {
        fs::DirBuilder::new().mode(0o700).create(&dir)?;
        let stage = Self { tools: dir.join("tools"), dir };
        let target = stage.tools.join(PACKS_DIR.trim_start_matches('/'));
        make_directory(&stage.tools)?;
        for part in ["berth", "berth/packs", "etc", "etc/ssl", "etc/ssl/certs"] {
            make_directory(&stage.tools.join(part))?;
        }
        copy_tree(packs, &target)?;
        if let Some(bundle) = ca_bundle {
            let target = stage.tools.join(CA_BUNDLE.trim_start_matches('/'));
            fs::copy(bundle, &target)?;
            fs::set_permissions(&target, Permissions::from_mode(0o644))?;
        }
        Ok(stage)
    }

    /// Where the source's tar may be put.
    pub fn source_path(&self) -> PathBuf {
        self.dir.join("source.tar")
    }

    /// The layer with packs and CA bundle.
    pub fn tools(&self) -> &Path {
        &self.tools
    }

    /// Makes the layer with a shared step's inputs, in the app's directory and owned by the app's user. A step that runs
    /// again gets the one it had.
    ///
    /// # Errors
    /// A directory that cannot be written.
    pub fn inputs(&self, step: &str, files: &BTreeMap<String, Vec<u8>>) -> io::Result<PathBuf> {
        let layer = self.dir.join(format!("inputs-{step}"));
        let app = layer.join("app");
        if layer.is_dir() {
            return Ok(layer);
        }
        make_directory(&layer)?;
        make_directory(&app)?;
        chown(&app, Some(APP_USER.0), Some(APP_USER.1))?;
        for (name, content) in files {
            // Plan::parse saw that no name leaves the directory, and all of it is made here: there is no link to follow.
            let mut parent = app.clone();
            for part in Path::new(name).parent().into_iter().flat_map(Path::components) {
                parent.push(part);
                if !parent.is_dir() {
                    make_directory(&parent)?;
                    chown(&parent, Some(APP_USER.0), Some(APP_USER.1))?;
                }
            }
            let path = app.join(name);
            fs::write(&path, content)?;
            fs::set_permissions(&path, Permissions::from_mode(0o644))?;
            chown(&path, Some(APP_USER.0), Some(APP_USER.1))?;
        }
        Ok(layer)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            tracing::warn!(path = %self.dir.display(), %error, "a build's directory could not be removed; the next start of the agent does");
        }
    }
}

/// The environment of every step: the operator's, and where the CA bundle is.
pub fn environment(operators: &BTreeMap<String, String>, ca_bundle: bool) -> BTreeMap<String, String> {
    let mut env = operators.clone();
    if ca_bundle {
        env.extend(CA_VARIABLES.iter().map(|name| ((*name).to_owned(), CA_BUNDLE.to_owned())));
    }
    for (name, value) in [
        ("PATH", super::manifest::PATH),
        ("HOME", "/tmp"),
        ("LANG", "C.UTF-8"),
        ("TERM", "dumb"),
        ("STACK", "berth-13"),
    ] {
        env.entry(name.to_owned()).or_insert_with(|| value.to_owned());
    }
    env
}

/// Config vars as a tar with a file for each: it goes to a step's standard input and is unpacked on the container's own
/// tmpfs, so that no secret touches a disk.
///
/// # Errors
/// A name that no tar can hold.
pub fn config_tar(config: &BTreeMap<String, String>) -> io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, value) in config {
        let mut header = tar::Header::new_gnu();
        header.set_size(value.len() as u64);
        header.set_mode(0o600);
        tar.append_data(&mut header, name, value.as_bytes())?;
    }
    tar.into_inner()
}

/// The digest of a pack's programs and of what all packs share: part of the key of all its layers.
///
/// # Errors
/// A file that cannot be read.
pub fn pack_digest(packs: &Path, pack: &str) -> io::Result<Digest> {
    let mut files = BTreeMap::new();
    for part in [pack, "lib"] {
        for (name, path) in tree(&packs.join(part))? {
            files.insert(format!("{part}/{name}"), Digest::of(&fs::read(path)?).to_string());
        }
    }
    Ok(Digest::of(&serde_json::to_vec(&files).unwrap_or_default()))
}

/// Every regular file below a directory of the operator's, by its path relative to it.
fn tree(root: &Path) -> io::Result<BTreeMap<String, PathBuf>> {
    let (mut files, mut directories) = (BTreeMap::new(), vec![root.to_owned()]);
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            let (kind, path) = (entry.file_type()?, entry.path());
            // Python leaves these beside programs that were tried by hand.
            if kind.is_dir() && entry.file_name() != "__pycache__" {
                directories.push(path);
            } else if kind.is_file() {
                let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
                files.insert(name, path);
            }
        }
    }
    Ok(files)
}

fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    for (name, path) in tree(from)? {
        let target = to.join(&name);
        let mut parents: Vec<_> =
            target.ancestors().skip(1).take_while(|parent| parent.starts_with(to) && *parent != to).collect();
        parents.reverse();
        for parent in parents {
            if !parent.is_dir() {
                make_directory(parent)?;
            }
        }
        fs::copy(&path, &target)?;
        let executable = fs::metadata(&path)?.permissions().mode() & 0o100 != 0;
        fs::set_permissions(&target, Permissions::from_mode(if executable { 0o755 } else { 0o644 }))?;
    }
    Ok(())
}

/// A directory that everybody may read, whatever the agent's umask.
fn make_directory(path: &Path) -> io::Result<()> {
    fs::create_dir(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o755))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packs() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/packs")
    }

    #[test]
    fn the_packs_must_be_laid_out_executable_and_be_gone_afterwards() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stage");
        let stage = Stage::new(path.clone(), &packs(), None).unwrap();
        let detect = stage.tools().join("berth/packs/python/bin/detect");
        assert_eq!(fs::metadata(detect).unwrap().permissions().mode() & 0o777, 0o755);
        assert!(!stage.tools().join("etc/ssl/certs/ca-certificates.crt").exists());
        drop(stage);
        assert!(!path.exists());
    }

    #[test]
    fn config_vars_must_become_files_of_their_names() {
        let tar =
            config_tar(&BTreeMap::from([("A".into(), "1\n2".into()), ("B".into(), String::new())])).unwrap();
        let mut archive = tar::Archive::new(tar.as_slice());
        let names: Vec<_> =
            archive.entries().unwrap().map(|e| e.unwrap().path().unwrap().display().to_string()).collect();
        assert_eq!(names, ["A", "B"]);
    }

    #[test]
    fn a_packs_digest_must_not_depend_on_another_pack() {
        let dir = tempfile::tempdir().unwrap();
        copy_tree(&packs(), dir.path()).unwrap();
        let before = pack_digest(dir.path(), "python").unwrap();
        fs::write(dir.path().join("node/bin/detect"), "changed").unwrap();
        assert_eq!(before, pack_digest(dir.path(), "python").unwrap());
        fs::write(dir.path().join("lib/pack.py"), "changed").unwrap();
        assert_ne!(before, pack_digest(dir.path(), "python").unwrap());
    }

    #[test]
    fn the_operators_environment_must_reach_every_step() {
        let env = environment(&BTreeMap::from([("PIP_INDEX_URL".into(), "u".into())]), true);
        assert_eq!(env["PIP_INDEX_URL"], "u");
        assert_eq!(env["npm_config_cafile"], CA_BUNDLE);
        assert!(!environment(&BTreeMap::new(), false).contains_key("PIP_CERT"));
    }
}
