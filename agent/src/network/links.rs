//! The host's side over rtnetlink: veth pairs, routes and neighbours, and what other networks there are.
//! What happens inside the container's namespace is in `inside`.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;

use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::link::{InfoData, InfoVeth, LinkAttribute, LinkMessage};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::{Handle, LinkUnspec, LinkVeth, RouteMessageBuilder};

use super::{Endpoint, NetworkError, io_error};
use crate::installation::Block;

/// Marks Berth's own routes (rtnetlink(7), rtm_protocol; 98 has no owner in iproute2's rt_protos).
const PROTOCOL: RouteProtocol = RouteProtocol::Other(98);

/// The table of the host's own addresses (linux/rtnetlink.h, RT_TABLE_LOCAL).
const TABLE_LOCAL: u32 = 255;

/// A connection to the kernel in the agent's network namespace.
#[derive(Debug, Clone)]
pub(super) struct Links {
    handle: Handle,
}

/// One container's pair, as both ends need to know it.
#[derive(Debug, Clone)]
pub(super) struct Pair {
    pub endpoint: Endpoint,
    pub mtu: u32,
    pub alias: String,
    pub hardware_host: [u8; 6],
    pub hardware_container: [u8; 6],
}

/// The container's end.
pub(super) const CONTAINER_INTERFACE: &str = "eth0";

impl Pair {
    /// Locally administered hardware addresses with the IPv4 address in them; the two ends differ in the second byte.
    pub(super) fn new(endpoint: &Endpoint, mtu: u32, alias: &str) -> Self {
        let [a, b, c, d] = endpoint.address.octets();
        Self {
            endpoint: endpoint.clone(),
            mtu,
            alias: alias.to_owned(),
            hardware_host: [0x02, 0xb0, a, b, c, d],
            hardware_container: [0x02, 0xb1, a, b, c, d],
        }
    }
}

/// The networks around the host.
#[derive(Debug, Default)]
pub(super) struct Surroundings {
    /// Where default routes lead out.
    pub uplinks: Vec<String>,
    /// Every destination in the main table that is not Berth's, default routes aside.
    pub routes: Vec<Block>,
    /// Those of them that the host is on itself.
    pub neighbourhood: Vec<Block>,
    /// The smallest MTU of the uplinks: a larger packet would need path MTU discovery on every connection.
    pub mtu: u32,
}

/// The error of a netlink request, with the kernel's errno where it sent one.
pub(super) fn netlink_error(
    action: &'static str,
    on: impl ToString,
) -> impl FnOnce(rtnetlink::Error) -> NetworkError {
    let on = on.to_string();
    move |error| NetworkError::Netlink { action, on, source: errno(&error) }
}

fn errno(error: &rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other.to_string()),
    }
}

fn unless_gone(done: Result<(), rtnetlink::Error>) -> Result<(), rtnetlink::Error> {
    match done {
        Err(error)
            if matches!(errno(&error).raw_os_error(), Some(libc::ENODEV | libc::ESRCH | libc::ENOENT)) =>
        {
            Ok(())
        }
        done => done,
    }
}

impl Links {
    pub(super) fn open() -> Result<Self, NetworkError> {
        let (connection, handle, _) = rtnetlink::new_connection()
            .map_err(|source| NetworkError::Netlink { action: "open", on: "route socket".into(), source })?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// What is routed where.
    pub(super) async fn surroundings(&self) -> Result<Surroundings, NetworkError> {
        let list = self.handle.route().get(RouteMessageBuilder::<Ipv4Addr>::new().build()).execute();
        let routes: Vec<RouteMessage> = list.try_collect().await.map_err(netlink_error("list", "routes"))?;
        let mut around = Surroundings { mtu: 1_500, ..Surroundings::default() };
        let mut uplinks = Vec::new();
        for route in routes.iter().filter(|route| route.header.table == RouteHeader::RT_TABLE_MAIN) {
            let destination = route.attributes.iter().find_map(|attribute| match attribute {
                RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(*address),
                _ => None,
            });
            let out = route.attributes.iter().find_map(|attribute| match attribute {
                RouteAttribute::Oif(index) => Some(*index),
                _ => None,
            });
            match destination {
                None => uplinks.extend(out),
                Some(_) if route.header.protocol == PROTOCOL => {}
                Some(address) => {
                    let block = Block::containing(address, route.header.destination_prefix_length);
                    around.routes.push(block);
                    if route.header.scope == RouteScope::Link {
                        around.neighbourhood.push(block);
                    }
                }
            }
        }
        let links: Vec<LinkMessage> = self
            .handle
            .link()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(netlink_error("list", "interfaces"))?;
        for link in links.iter().filter(|link| uplinks.contains(&link.header.index)) {
            for attribute in &link.attributes {
                match attribute {
                    LinkAttribute::IfName(name) => around.uplinks.push(name.clone()),
                    LinkAttribute::Mtu(mtu) => around.mtu = around.mtu.min(*mtu),
                    _ => {}
                }
            }
        }
        Ok(around)
    }

    fn block_routes(block: Block, gateway: Ipv4Addr) -> [RouteMessage; 2] {
        let unreachable = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(block.base, block.prefix)
            .kind(RouteType::Unreachable)
            .protocol(PROTOCOL);
        let local = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(gateway, 32)
            .kind(RouteType::Local)
            .scope(RouteScope::Host)
            .table_id(TABLE_LOCAL)
            // lo is 1 in every network namespace.
            .output_interface(1)
            .protocol(PROTOCOL);
        [unreachable.build(), local.build()]
    }

    /// Makes the gateway's address the host's own, and the rest of the block lead nowhere by default.
    pub(super) async fn add_block(&self, block: Block, gateway: Ipv4Addr) -> Result<(), NetworkError> {
        for route in Self::block_routes(block, gateway) {
            self.handle
                .route()
                .add(route)
                .replace()
                .execute()
                .await
                .map_err(netlink_error("route", block))?;
        }
        Ok(())
    }

    pub(super) async fn remove_block(&self, block: Block, gateway: Ipv4Addr) -> Result<(), NetworkError> {
        for route in Self::block_routes(block, gateway) {
            let done = self.handle.route().del(route).execute().await;
            unless_gone(done).map_err(netlink_error("remove route to", block))?;
        }
        Ok(())
    }

    /// Makes the pair with the container's end in its namespace, and routes the address to it.
    pub(super) async fn add(&self, pair: &Pair, netns: &OwnedFd) -> Result<(), NetworkError> {
        let name = &pair.endpoint.interface;
        let peer = rtnetlink::LinkMessageBuilder::<LinkUnspec>::default()
            .name(CONTAINER_INTERFACE)
            .address(pair.hardware_container.to_vec())
            .mtu(pair.mtu)
            .setns_by_fd(netns.as_raw_fd())
            .build();
        let host = LinkVeth::new(name, CONTAINER_INTERFACE)
            .address(pair.hardware_host.to_vec())
            .mtu(pair.mtu)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .build();
        self.handle.link().add(host).execute().await.map_err(netlink_error("make", name))?;
        let index = rustix::net::netdevice::name_to_index(open_socket()?, name).map_err(|errno| {
            NetworkError::Netlink { action: "find", on: name.clone(), source: errno.into() }
        })?;
        switch("ipv6", name, "disable_ipv6", "1")?;
        switch("ipv4", name, "forwarding", "1")?;
        let alias = LinkAttribute::IfAlias(pair.alias.clone());
        let up = LinkUnspec::new_with_index(index).append_extra_attribute(alias).up().build();
        self.handle.link().set(up).execute().await.map_err(netlink_error("set up", name))?;
        let address = pair.endpoint.address;
        self.handle
            .neighbours()
            .add(index, IpAddr::V4(address))
            .link_layer_address(&pair.hardware_container)
            .replace()
            .execute()
            .await
            .map_err(netlink_error("name the neighbour on", name))?;
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(address, 32)
            .output_interface(index)
            .scope(RouteScope::Link)
            .pref_source(pair.endpoint.gateway)
            .protocol(PROTOCOL)
            .build();
        self.handle.route().add(route).replace().execute().await.map_err(netlink_error("route", address))
    }

    /// Removes an interface (and so its peer and routes); no error if there is none.
    pub(super) async fn remove(&self, name: &str) -> Result<(), NetworkError> {
        let message = LinkUnspec::new_with_name(name).build();
        let done = self.handle.link().del_with_message(message).execute().await;
        unless_gone(done).map_err(netlink_error("remove", name))
    }

    /// As [`Links::remove`], by number: numbers are not given again until all others were.
    pub(super) async fn remove_index(&self, index: u32) -> Result<(), NetworkError> {
        let done = self.handle.link().del(index).execute().await;
        unless_gone(done).map_err(netlink_error("remove interface", index))
    }

    /// Removes interfaces of this prefix that are not to be kept.
    pub(super) async fn remove_strays(
        &self,
        prefix: &str,
        keep: impl Fn(&str) -> bool,
    ) -> Result<(), NetworkError> {
        let path = Path::new("/proc/thread-self/net/dev");
        let content = fs::read_to_string(path).map_err(io_error("read", path))?;
        let mut outcome = Ok(());
        for name in counters(&content, prefix).into_keys().filter(|name| !keep(name)) {
            outcome = outcome.and(self.remove(&name).await);
        }
        outcome
    }
}

/// The number of an interface, if there is one of this name.
pub(super) fn index(name: &str) -> Result<Option<u32>, NetworkError> {
    match rustix::net::netdevice::name_to_index(open_socket()?, name) {
        Ok(index) => Ok(Some(index)),
        Err(rustix::io::Errno::NODEV) => Ok(None),
        Err(errno) => {
            Err(NetworkError::Netlink { action: "find", on: name.to_owned(), source: errno.into() })
        }
    }
}

/// A socket to ask for interface indexes by.
pub(super) fn open_socket() -> Result<OwnedFd, NetworkError> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .map_err(|errno| NetworkError::Netlink { action: "open", on: "socket".into(), source: errno.into() })
}

/// Whether a sysctl of an interface has this value already: reading is cheap, writing is not, even of what is there.
pub(super) fn is_set(family: &str, interface: &str, name: &str, value: &str) -> bool {
    let path = Path::new("/proc/sys/net").join(family).join("conf").join(interface).join(name);
    fs::read_to_string(&path).is_ok_and(|set| set.trim() == value)
}

/// Sets a sysctl of one interface of ours; a kernel without that family has none.
pub(super) fn switch(family: &str, interface: &str, name: &str, value: &str) -> Result<(), NetworkError> {
    let path = Path::new("/proc/sys/net").join(family).join("conf").join(interface).join(name);
    match fs::write(&path, value) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && family == "ipv6" => Ok(()),
        done => done.map_err(io_error("write", &path)),
    }
}

/// Bytes the containers behind these interfaces received and sent, from `/proc/net/dev`: what the host's end sent is what
/// the container received.
pub(super) fn counters(content: &str, prefix: &str) -> HashMap<String, (u64, u64)> {
    let line = |line: &str| {
        let (name, values) = line.split_once(':')?;
        let name = name.trim();
        let mut values = values.split_whitespace().map(|value| value.parse::<u64>().ok());
        let host_received = values.next()??;
        let host_sent = values.nth(7)??;
        name.starts_with(prefix).then(|| (name.to_owned(), (host_sent, host_received)))
    };
    content.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_must_be_seen_from_the_container() {
        let content = "Inter-|   Receive      |  Transmit\n face |bytes packets errs drop fifo frame compressed multicast|bytes\n\
            eth0: 1 0 0 0 0 0 0 0 2 0 0 0 0 0 0 0\n bth01-2: 100 1 0 0 0 0 0 0 900 2 0 0 0 0 0 0\n";
        let found = counters(content, "bth01-");
        assert_eq!(found, HashMap::from([("bth01-2".to_owned(), (900, 100))]));
    }
}
