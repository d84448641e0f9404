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

use super::egress;
use super::links::{self, CONTAINER_INTERFACE, Pair, netlink_error};
use super::{NetworkError, io_error};

/// Brings `lo` up and gives `eth0` its address, neighbour and routes.
pub(super) async fn configure(
    netns: OwnedFd,
    pair: Pair,
    egress_bytes_per_second: u64,
) -> Result<(), NetworkError> {
    within(netns, async move || set_up(&pair, egress_bytes_per_second).await).await
}

/// Changes how much `eth0` may send.
pub(super) async fn limit(netns: OwnedFd, egress_bytes_per_second: u64) -> Result<(), NetworkError> {
    within(netns, async move || egress::set(&connect()?, container_index()?, egress_bytes_per_second).await)
        .await
}

/// Does something on a thread in the network namespace.
async fn within<F: Future<Output = Result<(), NetworkError>>>(
    netns: OwnedFd,
    action: impl FnOnce() -> F + Send + 'static,
) -> Result<(), NetworkError> {
    let (done, outcome) = tokio::sync::oneshot::channel();
    let started = std::thread::Builder::new().name("netns".into()).spawn(move || {
        // The receiver is gone only if the caller was cancelled.
        let _ = done.send(enter(&netns, action));
    });
    let thread =
        |source| NetworkError::Netlink { action: "configure", on: "network namespace".into(), source };
    started.map_err(thread)?;
    outcome.await.map_err(|_| thread(io::Error::other("the thread in it panicked")))?
}

fn enter<F: Future<Output = Result<(), NetworkError>>>(
    netns: &OwnedFd,
    action: impl FnOnce() -> F,
) -> Result<(), NetworkError> {
    let failed = |source: io::Error| NetworkError::Netlink {
        action: "enter",
        on: "a container's network namespace".into(),
        source,
    };
    move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))
        .map_err(|e| failed(e.into()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(failed)?;
    runtime.block_on(async { action().await })
}

/// A connection to the kernel in the thread's network namespace.
fn connect() -> Result<rtnetlink::Handle, NetworkError> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(|source| NetworkError::Netlink {
        action: "open",
        on: "route socket in the container".into(),
        source,
    })?;
    tokio::spawn(connection);
    Ok(handle)
}

fn container_index() -> Result<u32, NetworkError> {
    let found = rustix::net::netdevice::name_to_index(links::open_socket()?, CONTAINER_INTERFACE);
    found.map_err(|errno| NetworkError::Netlink {
        action: "find",
        on: CONTAINER_INTERFACE.into(),
        source: errno.into(),
    })
}

async fn set_up(pair: &Pair, egress_bytes_per_second: u64) -> Result<(), NetworkError> {
    // Any port may be bound without a capability, as under Docker: the namespace has no other user.
    let ports = Path::new("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    fs::write(ports, "0").map_err(io_error("write", ports))?;
    // The launcher's namespaces begin with it.
    if !links::is_set("ipv6", CONTAINER_INTERFACE, "disable_ipv6", "1") {
        links::switch("ipv6", CONTAINER_INTERFACE, "disable_ipv6", "1")?;
    }
    let (handle, index) = (connect()?, container_index()?);
    egress::set(&handle, index, egress_bytes_per_second).await?;
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
