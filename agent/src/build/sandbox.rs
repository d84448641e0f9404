//! One container of a build, from its root to its output and the layer it leaves. What runs in which order is `pipeline`'s.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use berth_wire::code::Code;
use berth_wire::id::InstanceId;
use berth_wire::quota::{MIB, Quota};
use berth_wire::report::{Exit, Trouble};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::unix::pipe;
use tokio_util::task::AbortOnDropHandle;

use super::log::BuildLog;
use super::manifest::{APP_DIR, APP_USER};
use super::trouble;
use crate::container::{Capabilities, ContainerSpec, Host, Output};
use crate::image::Layer;

/// The largest plan or release that a pack may print.
const ANSWER_BYTES_MAX: u64 = 1 << 20;
/// How long output may still come once the container has ended. Nothing of it lives then: only what is in the pipe is left.
const OUTPUT_REST_MAX: Duration = Duration::from_secs(5);

/// What a container of a build does.
pub struct Job {
    /// Its root's layers, lowest first.
    pub layers: Vec<PathBuf>,
    /// What it runs.
    pub argv: Vec<String>,
    /// Its environment.
    pub env: BTreeMap<String, String>,
    /// What it reads from its standard input.
    pub input: Box<dyn AsyncRead + Send + Unpin>,
    /// Runs as root of the container.
    pub root: bool,
    /// May reach the internet.
    pub network: bool,
    /// Its standard output is an answer for the agent, not for the log.
    pub answers: bool,
    /// The key under which what it changed becomes a layer, if it ends well.
    pub key: Option<String>,
}

/// How a job ended.
#[derive(Debug)]
pub struct Ran<L> {
    /// How its main process ended.
    pub exit: Exit,
    /// Its answer.
    pub answer: Vec<u8>,
    /// What it changed, if it had a key and ended well.
    pub layer: Option<L>,
    /// Whether it ended with its disk quota used up.
    pub disk_full: bool,
}

/// Where jobs run.
pub trait Sandbox: Sync {
    /// A layer that is kept.
    type Layer: Clone + Send + Sync;
    /// Where it is on the host.
    fn path<'a>(&self, layer: &'a Self::Layer) -> &'a Path;
    /// The layer of a key, if a build before made it.
    fn find(&self, key: &str) -> Option<Self::Layer>;
    /// Runs a job to its end.
    fn run(&self, job: Job, log: &BuildLog)
    -> impl Future<Output = Result<Ran<Self::Layer>, Trouble>> + Send;
}

/// Containers of this host, one after the other, all under one build's instance and quota.
#[derive(Debug)]
pub struct Containers {
    /// The host.
    pub host: Arc<Host>,
    /// The build's instance.
    pub id: InstanceId,
    /// Its name, for the container's host name.
    pub hostname: String,
    /// What each of them may use.
    pub quota: Quota,
}

impl Sandbox for Containers {
    type Layer = Layer;

    fn path<'a>(&self, layer: &'a Layer) -> &'a Path {
        &layer.path
    }

    fn find(&self, key: &str) -> Option<Layer> {
        self.host.images.find_keyed(key)
    }

    async fn run(&self, job: Job, log: &BuildLog) -> Result<Ran<Layer>, Trouble> {
        let key = job.key.clone();
        let (spec, reader, _feeder) = self.prepare(job, log).map_err(|error| {
            trouble(Code::B18, format!("The pipes of a build step could not be made: {error}; push again"))
        })?;
        let started = self.host.start(spec).await;
        let ran = match started {
            Ok(_) => self.finish(reader, key).await,
            Err(error) => Err(trouble(error.code, format!("A build step could not be started: {error}"))),
        };
        // Whatever of it is left, the next step has the same id; the agent's own clean-up repeats this after the build.
        if let Err(error) = self.host.destroy(self.id, true).await {
            tracing::warn!(instance = %self.id, %error, "a build's container could not be removed whole");
        }
        ran
    }
}

type Reader = AbortOnDropHandle<Vec<u8>>;
type Feeder = AbortOnDropHandle<()>;

impl Containers {
    /// The container, and the tasks that read its output and write its input until it ends.
    fn prepare(&self, job: Job, log: &BuildLog) -> io::Result<(ContainerSpec, Reader, Feeder)> {
        let (mut feed, stdin) = pipe::pipe()?;
        let (log_end, from_log_end) = pipe::pipe()?;
        let stderr = log_end.into_blocking_fd()?;
        let (stdout, answer) = match job.answers {
            true => {
                let (stdout, answer) = pipe::pipe()?;
                (stdout.into_blocking_fd()?, Some(answer))
            }
            false => (stderr.try_clone()?, None),
        };
        let reader = tokio::spawn(read(from_log_end, answer, log.clone()));
        let mut input = job.input;
        let feeder = tokio::spawn(async move {
            // A program that does not read its input to the end is not wrong.
            let _ = tokio::io::copy(&mut input, &mut feed).await;
        });
        let spec = ContainerSpec {
            id: self.id,
            hostname: self.hostname.clone(),
            layers: job.layers,
            argv: job.argv,
            env: job.env,
            cwd: APP_DIR.to_owned(),
            user: if job.root { (0, 0) } else { APP_USER },
            quota: self.quota,
            binds: Vec::new(),
            output: Output::Fds { stdin: Some(stdin.into_blocking_fd()?), stdout, stderr },
            capabilities: if job.root { Capabilities::Build } else { Capabilities::App },
            network: job.network,
        };
        Ok((spec, AbortOnDropHandle::new(reader), AbortOnDropHandle::new(feeder)))
    }

    /// Waits for the end, and takes the layer if it was a good one.
    async fn finish(&self, reader: Reader, key: Option<String>) -> Result<Ran<Layer>, Trouble> {
        let mut exit = self.host.wait(self.id).await;
        // Where the kernel cannot kill a whole group (cgroup v1), a pack outlives the compiler that was killed for memory.
        let oom_kills =
            || self.host.cgroups.get(self.id).ok().flatten().and_then(|group| group.oom_kills().ok());
        if exit != Exit::Code(0) && oom_kills().is_some_and(|count| count > 0) {
            exit = Exit::OutOfMemory;
        }
        // A reader that is late or panicked has told the log what it could; only an answer is missed, and that is told.
        let answer =
            tokio::time::timeout(OUTPUT_REST_MAX, reader).await.ok().and_then(Result::ok).unwrap_or_default();
        let (used, limit) = self.host.disk.usage(self.id).unwrap_or((0, u64::MAX));
        let most = self.quota.disk_bytes.max;
        // The kernel refuses what would go over, so a full disk ends a little below: 64 KiB or 2 %, whichever is more.
        let disk_full = exit != Exit::Code(0) && used.saturating_add((limit / 50).max(64 << 10)) >= limit;
        if disk_full && limit < most {
            let message = format!(
                "The host has no more than {} MiB of disk for a build step at the moment, because apps hold what is not \
                 reserved; push again when there is more, or enlarge pool_bytes",
                limit / MIB
            );
            return Err(trouble(Code::D13, message));
        }
        let mut layer = None;
        if let (Exit::Code(0), Some(key)) = (exit, key) {
            let scratch = self.host.disk.get(self.id).ok_or_else(|| {
                trouble(Code::B18, "The disk of a build step went away while it ran; push again".to_owned())
            })?;
            self.host.disk.leave_to_layers(self.id);
            let kept = self.host.images.layer_from_upper(&scratch.upper, &key).await;
            layer = Some(kept.map_err(|error| {
                tracing::error!(%error, "could not keep what a build step made");
                let why = error.for_outsiders();
                trouble(Code::B23, format!("What a build step made could not be kept: {why}; push again"))
            })?);
        }
        Ok(Ran { exit, answer, layer, disk_full })
    }
}

/// Reads both streams to their ends; gives the answer, cut at what an answer may be.
async fn read(mut log_end: pipe::Receiver, answer_end: Option<pipe::Receiver>, log: BuildLog) -> Vec<u8> {
    let to_log = async {
        let mut chunk = vec![0; 16 << 10];
        while let Ok(length @ 1..) = log_end.read(&mut chunk).await {
            log.output(chunk.get(..length).unwrap_or_default());
        }
    };
    let to_answer = async {
        let mut answer = Vec::new();
        if let Some(end) = answer_end {
            // One byte more than allowed, so that a cut answer is no valid JSON by accident.
            let _ = end.take(ANSWER_BYTES_MAX + 1).read_to_end(&mut answer).await;
        }
        answer
    };
    let ((), answer) = tokio::join!(to_log, to_answer);
    answer
}
