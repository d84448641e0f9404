//! How often a container's limits refused it something. Read now and then, so the files are not kept
//! open. What the counts mean for people is decided elsewhere.

use super::control::{CgroupError, Kept, read_number};
use super::group::Cgroup;

/// Counted since the container was launched.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Refused {
    /// Forks beyond pids.max (pids.events, the same file on v1 and v2).
    pub forks: u64,
    /// Bytes of memory given back: on v2 what was reclaimed (pgsteal), on v1 whatever was uncharged (pgpgout), which is more;
    /// its memory.failcnt stays 0 on current kernels.
    pub memory_given_back_bytes: u64,
    /// Bytes in buffers of TCP sockets, and the most there may be. v1 only: v2 charges them as memory.
    pub network_buffers: Option<(u64, u64)>,
}

fn page_bytes() -> u64 {
    rustix::param::page_size() as u64
}

impl Cgroup {
    /// Reads them.
    ///
    /// # Errors
    /// An unreadable file.
    pub fn refused(&self) -> Result<Refused, CgroupError> {
        let forks = |group| Ok::<_, CgroupError>(Kept::open(group, "pids.events")?.keyed(["max"])?[0]);
        let unified = &self.groups.unified;
        match &self.groups.legacy {
            None => {
                let [pages] = Kept::open(unified, "memory.stat")?.keyed(["pgsteal"])?;
                let memory_given_back_bytes = pages * page_bytes();
                Ok(Refused { forks: forks(unified)?, memory_given_back_bytes, network_buffers: None })
            }
            Some([_, memory, pids, _]) => {
                // A kernel without socket accounting has neither file.
                let tcp = |file: &str| read_number(&memory.join(format!("memory.kmem.tcp.{file}"))).ok();
                let [pages] = Kept::open(memory, "memory.stat")?.keyed(["total_pgpgout"])?;
                Ok(Refused {
                    forks: forks(pids)?,
                    memory_given_back_bytes: pages * page_bytes(),
                    network_buffers: tcp("usage_in_bytes").zip(tcp("limit_in_bytes")),
                })
            }
        }
    }
}
