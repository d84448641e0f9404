//! Compiles the containers' init (init/init.rs) into OUT_DIR/init: a static program without libc.

use std::error::Error;
use std::path::PathBuf;
use std::process::Command;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=init/init.rs");
    println!("cargo::rerun-if-changed=build.rs");
    let out = PathBuf::from(std::env::var("OUT_DIR")?).join("init");
    let status = Command::new(std::env::var("RUSTC")?)
        .args(["--edition", "2024", "--crate-type", "bin", "--crate-name", "init"])
        .args(["--target", &std::env::var("TARGET")?])
        .args([
            "-C",
            "opt-level=s",
            "-C",
            "panic=abort",
            "-C",
            "strip=symbols",
            "-C",
            "relocation-model=static",
        ])
        .args(["-C", "link-arg=-nostartfiles", "-C", "link-arg=-nostdlib", "-C", "link-arg=-static"])
        .args([
            "-C",
            "link-arg=-Wl,--build-id=none",
            "-C",
            "link-arg=-Wl,-z,norelro",
            "-C",
            "force-unwind-tables=no",
        ])
        .arg("-o")
        .arg(&out)
        .arg("init/init.rs")
        .status()?;
    if !status.success() {
        return Err("rustc could not compile init/init.rs; its messages are above".into());
    }
    Ok(())
}
