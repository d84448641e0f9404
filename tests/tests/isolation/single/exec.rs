//! Further commands in a running container are as confined as its own, and show nothing of the host while they start.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use berth_agent::container::{ExecSpec, Output, StartError};
use berth_agent::launch::terminal_socket;
use berth_wire::attach::TerminalSize;
use berth_wire::id::InstanceId;
use berth_wire::launch::Plan;
use berth_wire::report::Exit;

use crate::stage::{Attempt, Stage};
use crate::table::{self, FINE};

const APP: u32 = 1_000;
const ROOT: u32 = 0;
/// How many terminals are made beside somebody who swaps their names.
const ROUNDS: u32 = 50;

fn null() -> Result<Output, String> {
    let open = || File::options().read(true).write(true).open("/dev/null").map_err(|error| error.to_string());
    Ok(Output::Fds { stdin: None, stdout: open()?.into(), stderr: open()?.into() })
}

/// Makes the attempt by exec in this container.
async fn exec(
    stage: &Stage,
    id: InstanceId,
    attempt: &Attempt<'_>,
    output: Output,
    adjust: impl FnOnce(Plan) -> Plan + Send,
) -> Result<Exit, StartError> {
    let spec = ExecSpec {
        id,
        argv: attempt.argv(),
        env: attempt.env.clone(),
        cwd: attempt.cwd.clone(),
        user: (attempt.user, attempt.user),
        quota: attempt.quota,
        capabilities: attempt.capabilities,
        output,
    };
    let running = stage.host.exec_with(spec, adjust).await?;
    Ok(running.wait().await)
}

async fn start(stage: &Stage, attempt: &Attempt<'_>) -> Result<InstanceId, String> {
    let spec = stage.spec(attempt);
    let id = spec.id;
    stage.host.start(spec).await.map_err(|error| error.to_string())?;
    Ok(id)
}

/// Rows whose other steps are the container's, so that taking out those of the command alone changes nothing.
const OF_THE_CONTAINER: [&str; 3] = ["init's filter", "run a set-user-ID program", "see /proc/keys"];

/// The table once more. A step is taken out where a further command has it; others are the container's.
pub async fn table(stage: Arc<Stage>) -> Result<(), String> {
    let id = start(&stage, &Attempt::new("wait", APP)).await?;
    // What root of the host does in a container there, others would find; so those attempts have one of their own.
    let open_to_all = start(&stage, &Attempt::new("wait", APP)).await?;
    let mut wrong = Vec::new();
    let mut shown = 0;
    for case in table::cases() {
        // The one counts the container's own command; the other leaves processes that others then have no room beside.
        if ["processes of the host", "fork without end"].contains(&&*case.name) {
            continue;
        }
        let attempt = Attempt::new(case.attempt, case.user).with(&case.arguments);
        let shipped = exec(&stage, id, &attempt, null()?, |plan| plan).await;
        if !shipped.as_ref().is_ok_and(|exit| case.is_refusal(exit)) {
            wrong.push(format!("{}: {shipped:?}", case.name));
        }
        let Some(step) = case.step.clone().filter(|_| !OF_THE_CONTAINER.contains(&&*case.name)) else {
            continue;
        };
        let removed = Arc::new(AtomicBool::new(false));
        let noted = Arc::clone(&removed);
        let without = move |plan: Plan| {
            noted.store(plan.steps.iter().chain(&plan.main).any(|s| step(s)), Ordering::Relaxed);
            plan.without(|s| step(s) || table::label(s))
        };
        let open = exec(&stage, open_to_all, &attempt, null()?, without).await;
        if removed.load(Ordering::Relaxed) {
            shown += 1;
            if open.as_ref().is_ok_and(|exit| *exit == case.refusal) {
                wrong.push(format!("{} without its step: {open:?}", case.name));
            }
        }
    }
    for id in [id, open_to_all] {
        stage.host.destroy(id, true).await.map_err(|error| error.to_string())?;
    }
    if wrong.is_empty() && shown > 0 { Ok(()) } else { Err(format!("{} shown; {}", shown, wrong.join("; "))) }
}

/// CVE-2024-21626 of a further command.
pub async fn leaked_directories(stage: Arc<Stage>) -> Result<(), String> {
    let id = start(&stage, &Attempt::new("wait", APP)).await?;
    let mut reached = Vec::new();
    for number in 0..64 {
        let cwd = format!("/proc/self/fd/{number}");
        let attempt = Attempt { cwd, ..Attempt::new("who", APP) };
        if exec(&stage, id, &attempt, null()?, |plan| plan).await.is_ok() {
            reached.push(number);
        }
    }
    stage.host.destroy(id, true).await.map_err(|error| error.to_string())?;
    if reached.is_empty() { Ok(()) } else { Err(format!("descriptors {reached:?} are directories")) }
}

/// CVE-2025-52565: root inside swaps what a terminal is made from with a link to another device.
pub async fn terminal(stage: Arc<Stage>) -> Result<(), String> {
    let swap = Attempt::new("swap a name for a terminal", ROOT);
    let id = start(&stage, &swap).await?;
    let mut outcomes = Vec::new();
    for _ in 0..ROUNDS {
        let (kept, socket) = terminal_socket().map_err(|error| error.to_string())?;
        let output = Output::Terminal { socket, size: TerminalSize { rows: 24, columns: 80 } };
        outcomes.push(exec(&stage, id, &Attempt::new("another terminal", ROOT), output, |plan| plan).await);
        // The master lies in it; without one the command would be hung up on.
        drop(kept);
    }
    stage.host.destroy(id, true).await.map_err(|error| error.to_string())?;
    let wrong =
        outcomes.iter().find(|outcome| !matches!(outcome, Ok(Exit::Code(code)) if i32::from(*code) == FINE));
    wrong.map_or(Ok(()), |wrong| Err(format!("{wrong:?}")))
}

/// CVE-2019-5736 and CVE-2024-21626 from beside: somebody inside opens what belongs to a command that is still becoming one.
pub async fn watched_start(stage: Arc<Stage>) -> Result<(), String> {
    for user in [ROOT, APP] {
        let id = start(&stage, &Attempt::new("watch commands start", user)).await?;
        let mut ran = 0;
        // Until the watcher has seen enough.
        while exec(&stage, id, &Attempt::new("who", user), null()?, |plan| plan).await.is_ok() {
            ran += 1;
        }
        let exit = stage.host.wait(id).await;
        stage.host.destroy(id, true).await.map_err(|error| error.to_string())?;
        if exit != Exit::Code(FINE as u8) || ran == 0 {
            return Err(format!("user {user}: {exit:?} after {ran} commands"));
        }
    }
    Ok(())
}

/// A container that just died, and one that never was.
pub async fn too_late(stage: Arc<Stage>) -> Result<(), String> {
    let id = start(&stage, &Attempt::new("who", APP)).await?;
    stage.host.wait(id).await;
    let dead = exec(&stage, id, &Attempt::new("who", APP), null()?, |plan| plan).await;
    stage.host.destroy(id, true).await.map_err(|error| error.to_string())?;
    let gone = exec(&stage, id, &Attempt::new("who", APP), null()?, |plan| plan).await;
    for outcome in [dead, gone] {
        match outcome {
            Err(error) if error.code == berth_wire::code::Code::R25 => {}
            other => return Err(format!("{other:?}")),
        }
    }
    Ok(())
}
