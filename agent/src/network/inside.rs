//! The container's end: done by a thread of its own that enters the container's network namespace and ends there, so that
//! no thread of the agent is ever left in a foreign namespace.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use rtnetlink::packet_route::route::RouteScope;
use rtnetlink::{LinkUnspec, RouteMessageBuilder};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::links::{self, CONTAINER_INTERFACE, Pair, netlink_error};
use super::{NetworkError, io_error};

/// Brings `lo` up and gives `eth0` its address, neighbour and routes.
pub(super) async fn configure(netns: OwnedFd, pair: Pair) -> Result<(), NetworkError> {
    let (done, outcome) = tokio::sync::oneshot::channel();
    let started = std::thread::Builder::new().name("netns".into()).spawn(move || {
        // The receiver is gone only if the caller was cancelled.
        let _ = done.send(enter(&netns, &pair));
    });
    let thread =
        |source| NetworkError::Netlink { action: "configure", on: "network namespace".into(), source };
    started.map_err(thread)?;
    outcome.await.map_err(|_| thread(io::Error::other("the thread in it panicked")))?
}

fn enter(netns: &OwnedFd, pair: &Pair) -> Result<(), NetworkError> {
    let failed = |source: io::Error| NetworkError::Netlink {
        action: "enter",
        on: format!("network namespace of {}", pair.endpoint.address),
        source,
    };
    move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))
        .map_err(|e| failed(e.into()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(failed)?;
    runtime.block_on(set_up(pair))
}

async fn set_up(pair: &Pair) -> Result<(), NetworkError> {
    // Any port may be bound without a capability, as under Docker: the namespace has no other user.
    let ports = Path::new("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    fs::write(ports, "0").map_err(io_error("write", ports))?;
    // The launcher's namespaces begin with it.
    if !links::is_set("ipv6", CONTAINER_INTERFACE, "disable_ipv6", "1") {
        links::switch("ipv6", CONTAINER_INTERFACE, "disable_ipv6", "1")?;
    }
    let (connection, handle, _) = rtnetlink::new_connection().map_err(|source| NetworkError::Netlink {
        action: "open",
        on: "route socket in the container".into(),
        source,
    })?;
    tokio::spawn(connection);
    let index = rustix::net::netdevice::name_to_index(links::open_socket()?, CONTAINER_INTERFACE).map_err(
        |errno| NetworkError::Netlink {
            action: "find",
            on: CONTAINER_INTERFACE.into(),
            source: errno.into(),
        },
    )?;
    for link in [1, index] {
        let up = LinkUnspec::new_with_index(link).up().build();
        handle.link().set(up).execute().await.map_err(netlink_error("set up in the container", link))?;
    }
    let (address, gateway) = (pair.endpoint.address, pair.endpoint.gateway);
    handle
        .address()
        .add(index, IpAddr::V4(address), 32)
        .execute()
        .await
        .map_err(netlink_error("give the container", address))?;
    handle
        .neighbours()
        .add(index, IpAddr::V4(gateway))
        .link_layer_address(&pair.hardware_host)
        .execute()
        .await
        .map_err(netlink_error("name in the container", gateway))?;
    let on_link = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(gateway, 32)
        .output_interface(index)
        .scope(RouteScope::Link);
    let default = RouteMessageBuilder::<Ipv4Addr>::new().output_interface(index).gateway(gateway);
    for route in [on_link.build(), default.build()] {
        handle
            .route()
            .add(route)
            .execute()
            .await
            .map_err(netlink_error("route in the container to", gateway))?;
    }
    Ok(())
}
