//! Attempts that do not fit the table: they need two containers, another image, an outside, or many rounds.

mod commands;
mod exec;
mod hostile;
mod label;
mod network;
mod quotas;
mod races;
mod run;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::permitted;
use crate::stage::Stage;

type Single = fn(Arc<Stage>) -> Pin<Box<dyn Future<Output = Result<(), String>>>>;

type Pure = fn() -> Result<(), String>;

/// In containers.
pub const ALL: &[(&str, Single)] = &[
    ("an image whose mount points are links must not be launched", |s| Box::pin(hostile::links(s))),
    ("a mask must not come from the image's /dev/null", |s| Box::pin(hostile::null_link(s))),
    ("an image's own /proc must be covered", |s| Box::pin(hostile::own_proc(s))),
    ("the launcher must not be written to through /proc/self/exe", |s| Box::pin(hostile::own_program(s))),
    ("a working directory in /proc/self/fd must lead nowhere", |s| Box::pin(hostile::leaked_directories(s))),
    ("a layer must be the same after root wrote over its files", |s| Box::pin(hostile::layers(s))),
    ("a mount must not follow a link that is swapped in on a shared volume", |s| {
        Box::pin(races::shared_volume(s))
    }),
    ("a clean-up must not follow a link", |s| Box::pin(races::clean_up(s))),
    ("a build's clean-up must not follow a link", |s| Box::pin(races::build_clean_up(s))),
    ("a container that eats memory must end as out of memory", |s| Box::pin(quotas::memory(s))),
    ("a child that eats memory must end the whole container", |s| Box::pin(quotas::memory_of_a_child(s))),
    ("temporary files must count as memory", |s| Box::pin(quotas::temporary_files(s))),
    ("a container must not write more than its disk quota", |s| Box::pin(quotas::disk(s))),
    ("a quota that nobody stated must be the default", |s| Box::pin(quotas::default_quota(s))),
    ("ids on the host must never be those of two containers", |s| Box::pin(quotas::id_ranges(s))),
    ("a build must have its nine capabilities and no more", |s| Box::pin(quotas::build(s))),
    ("a device node must be refused by the rule of the cgroup", |s| Box::pin(quotas::device_rule(s))),
    ("what cannot be executed must be refused with a code, leaving nothing", |s| {
        Box::pin(commands::refused(s))
    }),
    ("a strange environment must harm nobody", |s| Box::pin(commands::strange(s))),
    ("the host's security module must refuse where a mount no longer does", |s| {
        Box::pin(label::second_fence(s))
    }),
    ("only what is public must be reachable", |s| Box::pin(network::reachable(s))),
    ("run: exit statuses must be the command's, with the time of each step", |s| Box::pin(run::statuses(s))),
    ("run: signals must be the command's", |s| Box::pin(run::signals(s))),
    ("run: quotas must reach the kernel", |s| Box::pin(run::quotas(s))),
    ("run: an image must say what runs", |s| Box::pin(run::images(s))),
    ("run: a hostile image must be refused, leaving nothing", |s| Box::pin(run::hostile_images(s))),
    ("exec: every attempt of the table must be refused there, too", |s| Box::pin(exec::table(s))),
    ("exec: a working directory in /proc/self/fd must lead nowhere", |s| {
        Box::pin(exec::leaked_directories(s))
    }),
    ("exec: a terminal must be devpts's whatever is swapped", |s| Box::pin(exec::terminal(s))),
    ("exec: a command that starts must show nothing of the host", |s| Box::pin(exec::watched_start(s))),
    ("exec: in a container that died must be refused with a code", |s| Box::pin(exec::too_late(s))),
];

/// Without a container.
pub const PURE: &[(&str, Pure)] = &[
    ("permitted calls must be fewer than Docker's", permitted::calls),
    ("every socket family but four must be refused", permitted::socket_families),
    ("capabilities must be fewer than Docker's", permitted::capabilities),
];
