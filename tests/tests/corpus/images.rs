//! Which image there is: the stack with all of the corpus's packages, or the stack alone. Both are made once from Debian packages
//! and kept where `demo/one-host.sh` keeps the stack.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use berth_tests::installation::root;

/// A root file system.
pub struct Image {
    pub tar: PathBuf,
    /// With every package of the corpus.
    pub is_whole: bool,
    /// What to tell whoever wants it to be.
    pub why_not_whole: &'static str,
}

/// The whole one if it is there or may be made; continuous integration has no minutes for that.
pub fn find() -> Result<Image, String> {
    let cache = std::env::var_os("BERTH_STACK_CACHE").map_or("/var/cache/berth".into(), PathBuf::from);
    let packages = root().join("tests/corpus/packages.txt");
    // Another list of packages is another image.
    let recipe = [root().join("deploy/stack/packages.txt"), packages.clone()]
        .map(|path| fs::read(&path).unwrap_or_default());
    let whole =
        cache.join(format!("corpus-{}.tar", &berth_wire::digest::Digest::of(&recipe.concat()).hex()[..12]));
    let hurried = std::env::var_os("CI").is_some() && !whole.exists();
    let (tar, lists) = if hurried { (cache.join("berth-13.tar"), vec![]) } else { (whole, vec![packages]) };
    if !tar.exists() {
        make(&tar, &lists)?;
    }
    let why_not_whole =
        "their image takes minutes to make; run cargo test -p berth-tests --test corpus without CI set";
    Ok(Image { tar, is_whole: !hurried, why_not_whole })
}

fn make(tar: &Path, lists: &[PathBuf]) -> Result<(), String> {
    println!("making {} from Debian packages, once", tar.display());
    let dir = tar.parent().unwrap_or(tar);
    fs::create_dir_all(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let script = root().join("deploy/stack/build.sh");
    let made = Command::new(&script).arg(tar).args(lists).status();
    match made {
        Ok(status) if status.success() => Ok(()),
        other => Err(format!("{}: {other:?}", script.display())),
    }
}
