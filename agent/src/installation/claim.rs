//! Claiming a slot: one file per slot under `/run/berth/slots`, holding the id of who has it. `/run` empties at a
//! restart of the machine, as do the resources the claim stands for.
//!
//! Whoever works under a claim holds a shared lock on its file. A claim that nobody holds, and whose installation has neither a
//! cgroup nor an interface, is stale and is taken over when no slot is free. All of it happens under one lock file, so that two
//! agents starting at once cannot both take a slot. Addresses in use by somebody else make a slot unusable.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _};
use std::net::Ipv4Addr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::{Block, SLOTS, cgroup_parent, interface_prefix, slot_addresses};

const RUN: &str = "/run/berth";
/// Directory of the claims under [`RUN`].
pub(super) const SLOTS_DIR: &str = "slots";

/// Why no slot could be claimed.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// A file operation failed.
    #[error("installation: {action} {}: {source}; the agent needs to be root", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Every slot is taken.
    #[error(
        "all {SLOTS} slots for installations besides `default` are taken; remove one of those in {RUN}/{SLOTS_DIR}"
    )]
    NoSlot,
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ClaimError {
    let path = path.to_owned();
    move |source| ClaimError::Io { action, path, source }
}

/// Makes (if needed) and names an installation's runtime directory.
pub(super) fn runtime_dir(id: &str) -> Result<PathBuf, ClaimError> {
    let dir = Path::new(RUN).join(id);
    make_private(&dir)?;
    Ok(dir)
}

/// The slot of this id, claimed now if it has none yet, and what keeps the claim alive while it is open.
pub(super) fn slot(id: &str) -> Result<(u32, File), ClaimError> {
    let slots = Path::new(RUN).join(SLOTS_DIR);
    make_private(&slots)?;
    let _lock = lock(&slots)?;
    let first = first_slot(id);
    let order: Vec<u32> = (0..SLOTS).map(|i| (first + i) % SLOTS).collect();
    let owners: Vec<Option<String>> = order.iter().map(|slot| owner(&slots, *slot)).collect();
    if let Some(mine) = owners.iter().position(|owner| owner.as_deref() == Some(id)) {
        return Ok((order[mine], hold(&slots, order[mine])?));
    }
    let addresses = addresses_in_use();
    let usable = |slot: u32| !addresses.iter().any(|used| slot_addresses(slot).overlaps(*used));
    let all = || order.iter().zip(&owners).filter(|(slot, _)| usable(**slot));
    let free = all().find(|(_, owner)| owner.is_none());
    let stale = || all().find(|(slot, owner)| owner.as_deref().is_some_and(|o| !is_alive(&slots, **slot, o)));
    let Some((&slot, before)) = free.or_else(stale) else { return Err(ClaimError::NoSlot) };
    if let Some(before) = before {
        tracing::info!(slot, before, "taking over a stale claim");
        remove_runtime_dir(before)?;
    }
    let path = slots.join(slot.to_string());
    fs::write(&path, id).map_err(io_error("claim", &path))?;
    Ok((slot, hold(&slots, slot)?))
}

/// Gives up the claim and removes the runtime directory.
pub(super) fn release(id: &str, slot: Option<u32>) -> Result<(), ClaimError> {
    let slots = Path::new(RUN).join(SLOTS_DIR);
    remove_runtime_dir(id)?;
    let Some(slot) = slot else { return Ok(()) };
    let _lock = lock(&slots)?;
    if owner(&slots, slot).as_deref() == Some(id) {
        let path = slots.join(slot.to_string());
        fs::remove_file(&path).map_err(io_error("remove", &path))?;
    }
    Ok(())
}

fn remove_runtime_dir(id: &str) -> Result<(), ClaimError> {
    let dir = Path::new(RUN).join(id);
    match fs::remove_dir_all(&dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", &dir)(error)),
        _ => Ok(()),
    }
}

fn make_private(dir: &Path) -> Result<(), ClaimError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io_error("make directory", dir))
}

fn lock(slots: &Path) -> Result<File, ClaimError> {
    let path = slots.join("lock");
    let file = File::create(&path).map_err(io_error("open", &path))?;
    file.lock().map_err(io_error("lock", &path))?;
    Ok(file)
}

fn first_slot(id: &str) -> u32 {
    let hash = Sha256::digest(id.as_bytes());
    u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]) % SLOTS
}

fn owner(slots: &Path, slot: u32) -> Option<String> {
    let mut id = String::new();
    File::open(slots.join(slot.to_string())).ok()?.take(64).read_to_string(&mut id).ok()?;
    Some(id)
}

/// Keeps a claim alive for as long as the file is open.
fn hold(slots: &Path, slot: u32) -> Result<File, ClaimError> {
    let path = slots.join(slot.to_string());
    let file = File::open(&path).map_err(io_error("open", &path))?;
    file.lock_shared().map_err(io_error("lock", &path))?;
    Ok(file)
}

/// Whether somebody works under a claim, or something of it is left on the machine. What cannot be found out counts as such.
fn is_alive(slots: &Path, slot: u32, id: &str) -> bool {
    let held = match File::open(slots.join(slot.to_string())).map(|claim| claim.try_lock()) {
        Ok(Ok(())) => false,
        Ok(Err(TryLockError::WouldBlock | TryLockError::Error(_))) => true,
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    };
    let (parent, prefix) = (cgroup_parent(id), interface_prefix(Some(slot)));
    let roots = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/memory"];
    held || roots.iter().any(|root| Path::new(root).join(&parent).exists())
        || fs::read_to_string("/proc/thread-self/net/dev")
            .map_or(true, |all| all.lines().any(|line| line.trim_start().starts_with(&prefix)))
}

/// Destinations of this network namespace's routes that lie in 198.18.0.0/15 or more specific, from
/// `/proc/net/route` (proc_net; addresses in host byte order). Default routes and supernets do not count.
fn addresses_in_use() -> Vec<Block> {
    let table = fs::read_to_string("/proc/net/route").unwrap_or_default();
    routes_in(&table).into_iter().filter(|block| block.prefix >= 15).collect()
}

fn routes_in(table: &str) -> Vec<Block> {
    let number = |text: &str| u32::from_str_radix(text, 16).ok().map(u32::from_be);
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            let destination = number(fields.nth(1)?)?;
            let mask = number(fields.nth(5)?)?;
            Some(Block::containing(
                Ipv4Addr::from(destination),
                u8::try_from(mask.leading_ones()).unwrap_or(32),
            ))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_route_table_must_be_understood() {
        let table = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\n\
            eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
            eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        let blocks: Vec<String> = routes_in(table).iter().map(ToString::to_string).collect();
        assert_eq!(blocks, ["0.0.0.0/0", "192.0.2.0/24"]);
    }

    #[test]
    fn an_id_must_keep_its_slot_until_it_is_released() {
        if !nix::unistd::geteuid().is_root() {
            println!("skipped: claiming a slot needs root");
            return;
        }
        let id = format!("t-claim-{}", std::process::id());
        let (slot_first, held) = slot(&id).unwrap();
        drop(held);
        let (slot_again, held) = slot(&id).unwrap();
        assert_eq!(slot_again, slot_first);
        let other = format!("{id}-b");
        let (slot_other, _held_other) = slot(&other).unwrap();
        assert_ne!(slot_other, slot_first);
        release(&other, Some(slot_other)).unwrap();
        let slots = Path::new(RUN).join(SLOTS_DIR);
        assert!(is_alive(&slots, slot_first, &id), "its holder lives");
        drop(held);
        assert!(!is_alive(&slots, slot_first, &id), "nobody holds it and nothing is left");
        release(&id, Some(slot_first)).unwrap();
        assert!(!Path::new(RUN).join(&id).exists());
        assert_ne!(owner(&Path::new(RUN).join(SLOTS_DIR), slot_first).as_deref(), Some(id.as_str()));
    }
}
