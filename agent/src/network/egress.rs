//! How much a container may send: a token bucket (tbf(8)) on its own end of the veth, where it has no capability to touch it. There, and
//! not on the host's end, because what is over the rate waits in the sender's own socket (TCP small queues) instead of being dropped:
//! dropping, all that the host can do to what arrives at its end, costs the sender retransmissions and the host the work.
//!
//! Where the kernel has no tbf (CONFIG_NET_SCH_TBF) containers run without a limit, and [`is_possible`] says so.

use std::io;

use futures_util::StreamExt as _;
use rtnetlink::Handle;
use rtnetlink::packet_core::{DefaultNla, NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST};
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::tc::{TcAttribute, TcHandle, TcMessage, TcOption};

use super::NetworkError;

// linux/pkt_sched.h
const TCA_TBF_PARMS: u16 = 1;
const TCA_TBF_RATE64: u16 = 4;
const TCA_TBF_BURST: u16 = 6;
/// With it the kernel computes times itself and needs no table of them.
const LINKLAYER_ETHERNET: u8 = 1;

/// What may be sent at once: 10 ms worth, so that short answers go out at the interface's own speed; and no less than one packet before
/// its segmentation (64 KiB).
fn burst_bytes(bytes_per_second: u64) -> u32 {
    u32::try_from(bytes_per_second / 100).unwrap_or(u32::MAX).clamp(64 * 1_024, 16 << 20)
}

/// What may wait: 100 ms worth. Beyond it datagrams are dropped; TCP does not get that far.
fn queue_bytes(bytes_per_second: u64) -> u32 {
    u32::try_from(bytes_per_second / 10).unwrap_or(u32::MAX).clamp(128 * 1_024, 16 << 20)
}

/// struct tc_tbf_qopt: two struct tc_ratespec (rate and, unused, peak rate), then limit, buffer and MTU.
fn parameters(bytes_per_second: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(36);
    bytes.extend([0, LINKLAYER_ETHERNET]);
    bytes.extend([0; 6]);
    // The full rate is in RATE64; the kernel takes the larger.
    bytes.extend(u32::try_from(bytes_per_second).unwrap_or(u32::MAX).to_ne_bytes());
    bytes.extend([0; 12]);
    bytes.extend(queue_bytes(bytes_per_second).to_ne_bytes());
    bytes.extend([0; 8]);
    bytes
}

fn message(index: u32, bytes_per_second: u64) -> TcMessage {
    let mut message = TcMessage::with_index(index.cast_signed());
    message.header.parent = TcHandle::ROOT;
    let option = |kind, value| TcOption::Other(DefaultNla::new(kind, value));
    let options = vec![
        option(TCA_TBF_PARMS, parameters(bytes_per_second)),
        option(TCA_TBF_RATE64, bytes_per_second.to_ne_bytes().to_vec()),
        option(TCA_TBF_BURST, burst_bytes(bytes_per_second).to_ne_bytes().to_vec()),
    ];
    message.attributes = vec![TcAttribute::Kind("tbf".to_owned()), TcAttribute::Options(options)];
    message
}

/// Sets or changes the rate of an interface of the namespace that the handle is in.
pub(super) async fn set(handle: &Handle, index: u32, bytes_per_second: u64) -> Result<(), NetworkError> {
    match try_set(handle, index, bytes_per_second).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done.map_err(|source| NetworkError::Netlink {
            action: "limit what is sent by",
            on: format!("the container's interface {index}"),
            source,
        }),
    }
}

async fn try_set(handle: &Handle, index: u32, bytes_per_second: u64) -> io::Result<()> {
    let body = RouteNetlinkMessage::NewQueueDiscipline(message(index, bytes_per_second));
    let mut request = NetlinkMessage::from(body);
    request.header.flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
    let mut answers = handle.clone().request(request).map_err(|error| io::Error::other(error.to_string()))?;
    while let Some(answer) = answers.next().await {
        if let NetlinkPayload::Error(refused) = answer.payload
            && refused.code.is_some()
        {
            return Err(refused.to_io());
        }
    }
    Ok(())
}

/// Whether the kernel can do it: tried on the loopback of a network namespace of its own.
pub fn is_possible() -> bool {
    let attempt = || -> io::Result<()> {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        runtime.block_on(async {
            let (connection, handle, _) = rtnetlink::new_connection()?;
            tokio::spawn(connection);
            try_set(&handle, 1, 1 << 20).await
        })
    };
    std::thread::spawn(attempt).join().is_ok_and(|done| done.is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parameters_must_have_the_kernel_s_layout() {
        let bytes = parameters(1 << 20);
        assert_eq!(bytes.len(), 36);
        assert_eq!(bytes[8..12], (1_u32 << 20).to_ne_bytes());
        assert_eq!(bytes[24..28], (128_u32 * 1_024).to_ne_bytes());
    }

    #[test]
    fn a_burst_must_hold_one_packet_and_no_more_than_a_moment() {
        assert_eq!(burst_bytes(16 * 1_024), 64 * 1_024);
        assert_eq!(burst_bytes(100 << 20), 1 << 20);
        assert_eq!(burst_bytes(1 << 36), 16 << 20);
    }
}
