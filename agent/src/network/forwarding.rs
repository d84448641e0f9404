//! Forwarding on the interfaces that containers' traffic leaves by. The kernel decides by the interface that a packet
//! comes in on, so answers need it on the uplink, too. Berth switches it on per interface, never for the whole host,
//! remembers the old value, and the last installation to leave puts it back.
//!
//! Shared by all installations in a network namespace: `/run/berth/forwarding-NETNS/INTERFACE/` has `original` and one file per installation.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::{NetworkError, io_error};

/// The uplinks this installation holds open.
#[derive(Debug)]
pub(super) struct Forwarding {
    dir: PathBuf,
    id: String,
    opened: Vec<String>,
}

impl Forwarding {
    /// Switches forwarding on where it is off.
    pub(super) fn open(id: &str, uplinks: &[String]) -> Result<Self, NetworkError> {
        let netns = Path::new("/proc/thread-self/ns/net");
        let inode = fs::metadata(netns).map_err(io_error("look at", netns))?.ino();
        let dir = PathBuf::from(format!("/run/berth/forwarding-{inode}"));
        let mut forwarding = Self { dir, id: id.to_owned(), opened: Vec::new() };
        fs::create_dir_all(&forwarding.dir).map_err(io_error("make directory", &forwarding.dir))?;
        let _lock = forwarding.lock()?;
        for uplink in uplinks {
            let switch = switch(uplink);
            let value = fs::read_to_string(&switch).map_err(io_error("read", &switch))?;
            let users = forwarding.dir.join(uplink);
            if value.trim() != "0" && !users.exists() {
                continue;
            }
            if !users.exists() {
                fs::create_dir(&users).map_err(io_error("make directory", &users))?;
                let original = users.join("original");
                fs::write(&original, value.trim()).map_err(io_error("write", &original))?;
            }
            let user = users.join(format!("by-{id}"));
            fs::write(&user, "").map_err(io_error("write", &user))?;
            fs::write(&switch, "1").map_err(io_error("write", &switch))?;
            forwarding.opened.push(uplink.clone());
        }
        Ok(forwarding)
    }

    /// The uplinks that would not forward without Berth.
    pub(super) fn opened(&self) -> &[String] {
        &self.opened
    }

    /// Gives the uplinks up; idempotent.
    pub(super) fn restore(&self) -> Result<(), NetworkError> {
        let Ok(_lock) = self.lock() else { return Ok(()) };
        for uplink in &self.opened {
            let users = self.dir.join(uplink);
            match fs::remove_file(users.join(format!("by-{}", self.id))) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(io_error("remove", &users)(error));
                }
                _ => {}
            }
            let original = users.join("original");
            let alone = fs::read_dir(&users).is_ok_and(|entries| entries.count() == 1);
            if alone && let Ok(value) = fs::read_to_string(&original) {
                let switch = switch(uplink);
                match fs::write(&switch, value) {
                    // The interface has gone, and its switch with it.
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(io_error("write", &switch)(error));
                    }
                    _ => fs::remove_dir_all(&users).map_err(io_error("remove", &users))?,
                }
            }
        }
        let unused = fs::read_dir(&self.dir)
            .is_ok_and(|mut entries| !entries.any(|e| e.is_ok_and(|e| e.path().is_dir())));
        if unused {
            fs::remove_dir_all(&self.dir).map_err(io_error("remove", &self.dir))?;
        }
        Ok(())
    }

    fn lock(&self) -> Result<File, NetworkError> {
        let path = self.dir.join("lock");
        let file = File::create(&path).map_err(io_error("open", &path))?;
        file.lock().map_err(io_error("lock", &path))?;
        Ok(file)
    }
}

fn switch(interface: &str) -> PathBuf {
    Path::new("/proc/sys/net/ipv4/conf").join(interface).join("forwarding")
}
