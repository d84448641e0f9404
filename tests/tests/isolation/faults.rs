//! The launcher dies: its containers live on, the next launcher knows them, and no line that they wrote is lost.

use std::fs;

use berth_wire::report::Exit;

use crate::stage::{Attempt, Stage};

/// Kills the launcher three times while a container writes 2,000 lines.
pub async fn launcher_killed(stage: &mut Stage) -> Result<(), String> {
    let log = stage.dir.path().join("log");
    let _ = fs::remove_file(&log);
    let spec = stage.spec(&Attempt::new("say", 1_000));
    let id = spec.id;
    stage.host.start(spec).await.map_err(|error| error.to_string())?;
    for part in 1..=3 {
        wait_for_lines(&log, part * 200).await?;
        stage.replace_launcher()?;
    }
    let exit = stage.host.wait(id).await;
    stage.host.destroy(id, true).await.map_err(|error| error.to_string())?;
    if exit != Exit::Code(0) {
        return Err(format!("it ended with {exit:?}"));
    }
    let text = fs::read_to_string(&log).map_err(|error| error.to_string())?;
    let lines: Vec<&str> =
        text.lines().filter_map(|line| line.split_once(' ').map(|(_, text)| text)).collect();
    let missing = (0..2_000).filter(|number| !lines.contains(&format!("line {number}").as_str())).count();
    if missing == 0 { Ok(()) } else { Err(format!("{missing} lines are missing")) }
}

async fn wait_for_lines(log: &std::path::Path, count: usize) -> Result<(), String> {
    for _ in 0..1_000 {
        if fs::read_to_string(log).unwrap_or_default().lines().count() >= count {
            return Ok(());
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    Err(format!("{count} lines did not come"))
}
