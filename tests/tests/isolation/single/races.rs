//! A path that changes while it is looked at (runc CVE-2021-30465, youki CVE-2025-54867), and a clean-up that meets a link
//! (BuildKit CVE-2024-23652).

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::sync::Arc;

use berth_agent::container::{Bind, Capabilities};
use berth_wire::report::Exit;

use crate::stage::{Attempt, Stage};
use crate::table::FINE;

const APP: u32 = 1_000;
/// How often the mount is tried against the swap.
const ROUNDS: u32 = 100;
/// Within how many looks whoever follows links must have been fooled.
const LOOKS: u32 = 100_000;

/// One container swaps a directory of a shared volume with a link, as fast as it can; others are started with a mount on it.
pub async fn shared_volume(stage: Arc<Stage>) -> Result<(), String> {
    let (shared, secret) = (stage.dir.path().join("shared"), stage.dir.path().join("volume"));
    for directory in [&shared, &shared.join("data"), &secret] {
        fs::create_dir(directory).map_err(|error| error.to_string())?;
        fs::set_permissions(directory, fs::Permissions::from_mode(0o777))
            .map_err(|error| error.to_string())?;
        chown(directory, Some(APP), Some(APP)).map_err(|error| error.to_string())?;
    }
    fs::write(secret.join("mine"), "content").map_err(|error| error.to_string())?;
    symlink("/bin", shared.join("link")).map_err(|error| error.to_string())?;
    let volume = Bind { source: shared.clone(), target: "/vol".into(), read_only: false };
    let swap = Attempt { binds: vec![volume.clone()], ..Attempt::new("swap a directory and a link", APP) };
    let spec = stage.spec(&swap.with(["/vol/data", "/vol/link"]));
    let swapper = spec.id;
    stage.host.start(spec).await.map_err(|error| error.to_string())?;
    let raced = race(&stage, &shared, volume, &secret).await;
    stage.host.destroy(swapper, true).await.map_err(|error| error.to_string())?;
    raced
}

async fn race(stage: &Stage, shared: &Path, volume: Bind, secret: &Path) -> Result<(), String> {
    // The race is worth something only if somebody who follows links loses it.
    let fooled = (0..LOOKS).any(|_| {
        fs::canonicalize(shared.join("data")).is_ok_and(|path| path == Path::new("/bin"))
            || fs::read_link(shared.join("data")).is_ok()
    });
    if !fooled {
        return Err("nothing was swapped".into());
    }
    let (mut mounted, mut refused) = (0, 0);
    for _ in 0..ROUNDS {
        let data = Bind { source: secret.to_owned(), target: "/vol/data".into(), read_only: false };
        let attempt = Attempt { binds: vec![volume.clone(), data], ..Attempt::new("see", APP) };
        // Had the link been followed, /bin would hold the volume, and the probe that is to look would not even be there.
        match stage.attempt(&attempt.with(["/bin/mine"]), |plan| plan).await {
            Ok(Exit::Code(code)) if i32::from(code) == FINE => mounted += 1,
            Err(error) if error.message.contains("bind /vol/data") => refused += 1,
            other => return Err(format!("after {mounted} mounts and {refused} refusals: {other:?}")),
        }
    }
    if mounted > 0 && refused > 0 { Ok(()) } else { Err(format!("{mounted} mounts, {refused} refusals")) }
}

/// What a container leaves in its root is removed without following it.
pub async fn clean_up(stage: Arc<Stage>) -> Result<(), String> {
    let kept = stage.dir.path().join("kept");
    fs::create_dir(&kept)
        .and_then(|()| fs::write(kept.join("file"), "kept"))
        .map_err(|error| error.to_string())?;
    for path in ["/here", "/bin/here", "/etc/here"] {
        let attempt =
            Attempt::new("link", 0).with([Path::new(path), kept.as_path()].map(|path| path.display()));
        match stage.attempt(&attempt, |plan| plan).await {
            Ok(Exit::Code(0)) => {}
            other => return Err(format!("{path}: {other:?}")),
        }
    }
    let now = fs::read_to_string(kept.join("file"));
    if now.as_ref().is_ok_and(|text| text == "kept") { Ok(()) } else { Err(format!("the file is {now:?}")) }
}

/// buildkit CVE-2024-23652 and its kin. A build has no cache mounts that could be raced for: its caches are directories of its own
/// root. What a step, root inside, makes of them is a part of its layer, and neither keeping nor removing it follows a link.
pub async fn build_clean_up(stage: Arc<Stage>) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let kept = stage.dir.path().join("kept-by-builds");
    fs::create_dir(&kept).and_then(|()| fs::write(kept.join("file"), "kept")).map_err(|e| text(&e))?;
    let target = kept.display().to_string();
    let attempt = Attempt { capabilities: Capabilities::Build, ..Attempt::new("link", 0) };
    let spec = stage.spec(&attempt.with(["/cache", &target]));
    let id = spec.id;
    stage.host.start(spec).await.map_err(|e| text(&e))?;
    let exit = stage.host.wait(id).await;
    let scratch = stage.host.disk.get(id).ok_or("no disk")?;
    stage.host.disk.leave_to_layers(id);
    let layer = stage.host.images.layer_from_upper(&scratch.upper, "a build with a link").await;
    stage.host.destroy(id, true).await.map_err(|e| text(&e))?;
    let layer = layer.map_err(|e| text(&e))?;
    let link = fs::read_link(layer.path.join("cache")).map_err(|e| text(&e))?;
    let now = fs::read_to_string(kept.join("file")).map_err(|e| text(&e))?;
    if exit == Exit::Code(0) && link == kept && now == "kept" {
        Ok(())
    } else {
        Err(format!("{exit:?}, a link to {}, and the file is {now:?}", link.display()))
    }
}
