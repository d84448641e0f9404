//! Images of one static program: a plain one, and hostile ones.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

/// Names of images whose NAME is a symbolic link to the canary's directory on the host, by an absolute path and by one that climbs.
pub const LINKS: [&str; 5] = ["proc", "sys", "dev", "tmp", "vol"];

/// Makes them all beneath `dir/images`; the canary is `dir/canary`.
pub fn make(dir: &Path) -> Result<(), String> {
    let (probe, poison) = programs()?;
    fs::create_dir_all(dir.join("canary")).map_err(text)?;
    fs::write(dir.join("canary/sysrq-trigger"), "alive").map_err(text)?;
    let image = |name: &str| dir.join("images").join(name);
    make_image(&image("plain"), &probe).map_err(text)?;
    for name in LINKS {
        for (kind, target) in [("absolute", dir.join("canary")), ("climbing", climbing(&dir.join("canary")))]
        {
            let root = image(&format!("{name}-{kind}"));
            make_image(&root, &probe).and_then(|()| symlink(target, root.join(name))).map_err(text)?;
        }
    }
    make_image(&image("null-link"), &probe).map_err(text)?;
    fs::create_dir(image("null-link").join("dev")).map_err(text)?;
    symlink("/canary", image("null-link").join("dev/null")).map_err(text)?;
    own_proc(&image("own-proc"), &probe).map_err(text)?;
    poisoned(&image("poisoned"), &probe, &poison, &dir.join("berth-launcher")).map_err(text)
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn climbing(path: &Path) -> std::path::PathBuf {
    Path::new("../../../../../../../../../..").join(path.strip_prefix("/").unwrap_or(path))
}

/// The probe and the poisoned library, compiled into `isolation/` beside the daemons' programs. A machine without a compiler (the
/// guest) uses those that came along with them.
fn programs() -> Result<(PathBuf, PathBuf), String> {
    let dir = berth_tests::installation::binaries().join("isolation");
    fs::create_dir_all(&dir).map_err(text)?;
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/isolation/probe");
    let (probe, poison) = (dir.join("probe"), dir.join("poison.so"));
    compile(&source.join("main.rs"), &probe, &["-C", "target-feature=+crt-static"])?;
    compile(&source.join("poison.rs"), &poison, &["--crate-type", "cdylib"])?;
    Ok((probe, poison))
}

fn compile(source: &Path, target: &Path, options: &[&str]) -> Result<(), String> {
    let mut rustc = Command::new("rustc");
    rustc.args(["--edition", "2024", "-D", "warnings", "-O", "-C", "panic=abort"]).args(options).arg("-o");
    let compiled = match rustc.arg(target).arg(source).status() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && target.exists() => return Ok(()),
        other => other.map_err(|error| format!("rustc: {error}"))?,
    };
    if compiled.success() { Ok(()) } else { Err(format!("{} does not compile", source.display())) }
}

fn make_image(root: &Path, probe: &Path) -> std::io::Result<()> {
    for directory in ["bin", "canary", "vol"] {
        if !(directory == "vol"
            && root.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vol")))
        {
            fs::create_dir_all(root.join(directory))?;
        }
    }
    fs::copy(probe, root.join("bin/probe"))?;
    fs::copy(probe, root.join("bin/root-probe"))?;
    fs::set_permissions(root.join("bin/root-probe"), fs::Permissions::from_mode(0o4755))?;
    fs::write(root.join("bin/other"), "as it was")?;
    for (name, content, mode) in [
        ("not-executable", "#!/bin/probe\n", 0o644),
        ("garbage", "\u{1}\u{2}\u{3}", 0o755),
        ("no-interpreter", "#!/bin/absent\n", 0o755),
    ] {
        fs::write(root.join("bin").join(name), content)?;
        fs::set_permissions(root.join("bin").join(name), fs::Permissions::from_mode(mode))?;
    }
    for (name, minor) in [("node", 3), ("kmsg", 11)] {
        let (node, mode) = (root.join(name), Mode::from_raw_mode(0o666));
        mknodat(CWD, &node, FileType::CharacterDevice, mode, makedev(1, minor))?;
        fs::set_permissions(node, fs::Permissions::from_mode(0o666))?;
    }
    Ok(())
}

/// An image that brings a /proc of its own, with files where the runtime could write (CVE-2019-19921).
fn own_proc(root: &Path, probe: &Path) -> std::io::Result<()> {
    make_image(root, probe)?;
    for directory in ["proc/self/attr", "proc/1/fd", "proc/sys/kernel"] {
        fs::create_dir_all(root.join(directory))?;
    }
    for file in ["proc/self/attr/exec", "proc/self/status", "proc/self/uid_map", "proc/sysrq-trigger"] {
        fs::write(root.join(file), "forged")?;
    }
    symlink("/canary", root.join("proc/sys/net"))
}

/// An image whose dynamic loader and libraries are real enough for the launcher's own binary to start in it, so that
/// `/proc/self/exe` as a command runs it with a library of the image's (CVE-2019-5736).
fn poisoned(root: &Path, probe: &Path, poison: &Path, launcher: &Path) -> std::io::Result<()> {
    make_image(root, probe)?;
    let needed = Command::new("ldd").arg(launcher).output()?;
    let needed = String::from_utf8_lossy(&needed.stdout).into_owned();
    for library in needed.split_whitespace().filter(|word| word.starts_with('/')) {
        let target = root.join(library.trim_start_matches('/'));
        target.parent().map(fs::create_dir_all).transpose()?;
        fs::copy(library, target)?;
    }
    fs::copy(poison, root.join("poison.so")).map(drop)
}
