//! What the command line of `berth-agent run` says, and the quota that it means: one flag for each thing a quota has.

use std::path::PathBuf;

use berth_wire::digest::Digest;
use berth_wire::image::ImageRef;
use berth_wire::quota::{Bounds, MIB, Quota};

use crate::image::configuration;

/// The command line.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// A directory that holds a root file system, a tar of one, an OCI image layout (directory or tar), or, with --registry, an
    /// image as REPOSITORY@sha256:DIGEST.
    pub root: PathBuf,
    /// The command and its arguments; what the image says (entrypoint and command) if there is none.
    #[arg(last = true)]
    pub command: Vec<String>,
    /// User inside, as UID or UID:GID in numbers; the image's, or else 1000.
    #[arg(long, value_parser = user)]
    pub user: Option<(u32, u32)>,
    /// Working directory inside; the image's, or else /.
    #[arg(long, visible_alias = "workdir")]
    pub cwd: Option<String>,
    /// A terminal for the command, joined to this one.
    #[arg(short, long)]
    pub tty: bool,
    /// When it is over, write how it ended and how long each step of its start took to standard error, as one line of JSON.
    #[arg(long)]
    pub json: bool,
    /// An environment variable, KEY=VALUE; may be repeated.
    #[arg(short, long, value_parser = variable)]
    pub env: Vec<(String, String)>,
    /// The registry that has the image, such as http://127.0.0.1:7070.
    #[arg(long, requires = "registry_token_file")]
    pub registry: Option<String>,
    /// A file with the registry's bearer token.
    #[arg(long, requires = "registry")]
    pub registry_token_file: Option<PathBuf>,
    /// What it may use.
    #[command(flatten)]
    pub limits: QuotaArguments,
    /// No network beyond the container's own loopback.
    #[arg(long)]
    pub no_network: bool,
    /// Where its working files are kept while it runs.
    #[arg(long, default_value = "/var/tmp")]
    pub work_dir: PathBuf,
    /// Room for the layers of an image that is unpacked, in MiB.
    #[arg(long, default_value_t = 2_048)]
    pub image_mib: u64,
    /// Standard output and error go into this file, as lines with the time in microseconds before them, and not here.
    #[arg(long, conflicts_with = "tty")]
    pub log: Option<PathBuf>,
}

/// One flag for each thing a quota has. What is not stated is as an instance has it, but for smaller disks.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct QuotaArguments {
    /// CPU in thousandths of a core.
    #[arg(long, default_value_t = 1_000)]
    pub cpu_millis: u64,
    /// Its weight against other containers when CPU is short, in thousandths of a core.
    #[arg(long, default_value_t = 0)]
    pub cpu_weight_millis: u64,
    /// CPU it did not use and may make up for within 100 ms, in thousandths of a core.
    #[arg(long, default_value_t = 0)]
    pub cpu_burst_millis: u64,
    /// Memory in MiB; above it, the container is ended.
    #[arg(long, default_value_t = 512)]
    pub memory_mib: u64,
    /// Memory in MiB above which it is slowed down and reclaimed from; 0 for none.
    #[arg(long, default_value_t = 0)]
    pub memory_high_mib: u64,
    /// Swap in MiB beyond memory.
    #[arg(long, default_value_t = 0)]
    pub swap_mib: u64,
    /// Processes and threads.
    #[arg(long, default_value_t = 256)]
    pub pids: u64,
    /// Bytes written to the root, in MiB.
    #[arg(long, default_value_t = 256)]
    pub disk_mib: u64,
    /// KiB a second read from the disk, and as many written.
    #[arg(long, default_value_t = 128 * 1_024)]
    pub io_kib: u64,
    /// Reads a second, and as many writes.
    #[arg(long, default_value_t = 10_000)]
    pub io_ops: u64,
    /// KiB a second sent over the network.
    #[arg(long, default_value_t = 120 * 1_024)]
    pub egress_kib: u64,
    /// Files that one process may have open.
    #[arg(long, default_value_t = 65_536)]
    pub open_files: u64,
    /// Lines a second; those above are discarded and counted. Only for --log: what comes out here is as it was written.
    #[arg(long, default_value_t = 1_000)]
    pub log_lines: u64,
}

impl QuotaArguments {
    /// The quota. What is too much to be counted stays too much, and is refused by [`Quota::check`].
    pub fn quota(&self) -> Quota {
        let mib = |amount: u64| amount.saturating_mul(MIB);
        Quota {
            cpu_millis: Bounds::new(self.cpu_weight_millis, self.cpu_millis),
            cpu_burst_millis: self.cpu_burst_millis,
            memory_bytes: Bounds::new(0, mib(self.memory_mib)),
            memory_high_bytes: mib(self.memory_high_mib),
            swap_bytes: mib(self.swap_mib),
            pids: Bounds::new(0, self.pids),
            disk_bytes: Bounds::new(0, mib(self.disk_mib)),
            io_bytes_per_second: self.io_kib.saturating_mul(1_024),
            io_operations_per_second: self.io_ops,
            egress_bytes_per_second: self.egress_kib.saturating_mul(1_024),
            open_files: self.open_files,
            log_lines_per_second: Bounds::new(0, self.log_lines),
        }
    }
}

impl Arguments {
    /// The image in the registry that the root names.
    ///
    /// # Errors
    /// A sentence, for what names none.
    pub fn image(&self) -> Result<ImageRef, String> {
        let text = self.root.to_str().unwrap_or_default();
        let (repository, digest) = text.split_once('@').unwrap_or_default();
        let is_name = |name: &str| {
            let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
            let is_part =
                |part: &str| !part.is_empty() && part != "." && part != ".." && part.bytes().all(plain);
            name.len() <= 255 && name.split('/').all(is_part)
        };
        match digest.parse::<Digest>() {
            Ok(digest) if is_name(repository) => Ok(ImageRef { repository: repository.to_owned(), digest }),
            _ => Err(format!("{text:.100?} names no image; write REPOSITORY@sha256:DIGEST")),
        }
    }
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE".to_owned()),
    }
}

fn user(text: &str) -> Result<(u32, u32), String> {
    configuration::parse_user(text).ok_or_else(|| "write UID or UID:GID in numbers below 65535".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Alone {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn parsed(line: &str) -> Result<Arguments, String> {
        let words = ["run"].into_iter().chain(line.split_whitespace());
        Alone::try_parse_from(words).map(|alone| alone.arguments).map_err(|error| error.to_string())
    }

    #[test]
    fn every_part_of_a_quota_must_have_its_flag() {
        let all = "--cpu-millis 500 --cpu-weight-millis 40 --cpu-burst-millis 30 --memory-mib 64 --memory-high-mib 48 --swap-mib 8 \
                   --pids 20 --disk-mib 100 --io-kib 1024 --io-ops 99 --egress-kib 64 --open-files 100 --log-lines 7 /root";
        let quota = parsed(all).unwrap().limits.quota();
        quota.check().unwrap();
        // Each field differs from what it would be: none was forgotten.
        let fields = quota.resources().len() + quota.amounts().len();
        assert_eq!(quota.stated().len(), fields, "{quota:?}");
        parsed("/root").unwrap().limits.quota().check().unwrap();
        let endless = format!("--memory-mib {} /root", u64::MAX);
        assert!(parsed(&endless).unwrap().limits.quota().check().is_err());
    }

    #[test]
    fn an_image_must_be_named_by_its_digest() {
        let digest = Digest::of(b"x");
        let named =
            |root: &str| parsed(&format!("--registry u --registry-token-file t {root}")).unwrap().image();
        assert_eq!(named(&format!("apps/one@{digest}")).unwrap().repository, "apps/one");
        for bad in [
            "apps/one",
            "apps/one:latest",
            &format!("../x@{digest}"),
            &format!("@{digest}"),
            &format!("a//b@{digest}"),
            &format!("A@{digest}"),
        ] {
            assert!(named(bad).is_err(), "{bad}");
        }
        assert!(parsed("--registry u /root").is_err(), "a registry without its token");
    }

    #[test]
    fn what_is_no_user_or_variable_must_be_refused() {
        assert_eq!(parsed("--user 5 /root").unwrap().user, Some((5, 5)));
        for bad in
            ["--user root /root", "--user 65535 /root", "-e A /root", "-e =x /root", "--tty --log x /root"]
        {
            assert!(parsed(bad).is_err(), "{bad}");
        }
    }
}
