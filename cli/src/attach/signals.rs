//! Signals that this process gets while it is attached.

use berth_wire::attach::Frame;
use tokio::sync::mpsc;

/// Passes them on until it is time to go; answers with what to exit with. With a terminal, keys that send signals are the
/// command's own business, and whoever ends this process means this process: the command gets SIGHUP for it. Without one
/// they are the command's; SIGINT or SIGTERM a second time is for us.
#[cfg(unix)]
pub async fn pass_on(to: &mpsc::Sender<Frame>, terminal: bool) -> u8 {
    use tokio::signal::unix::{Signal, SignalKind, signal};
    let listen = |kind| signal(kind).ok();
    let (mut hangup, mut interrupt) = (listen(SignalKind::hangup()), listen(SignalKind::interrupt()));
    let (mut quit, mut terminate) = (listen(SignalKind::quit()), listen(SignalKind::terminate()));
    let (mut first, mut second) = (listen(SignalKind::user_defined1()), listen(SignalKind::user_defined2()));
    let mut window = listen(SignalKind::window_change());
    async fn next(signal: &mut Option<Signal>) {
        if let Some(signal) = signal
            && signal.recv().await.is_some()
        {
            return;
        }
        std::future::pending().await
    }
    let mut asked = false;
    loop {
        let kind = tokio::select! {
            () = next(&mut window) => {
                if terminal && let Some(size) = super::size() {
                    let _ = to.send(Frame::Resize(size)).await;
                }
                continue;
            }
            () = next(&mut hangup) => SignalKind::hangup(),
            () = next(&mut interrupt) => SignalKind::interrupt(),
            () = next(&mut quit) => SignalKind::quit(),
            () = next(&mut terminate) => SignalKind::terminate(),
            () = next(&mut first) => SignalKind::user_defined1(),
            () = next(&mut second) => SignalKind::user_defined2(),
        };
        let number = kind.as_raw_value() as u8;
        let ends = kind == SignalKind::interrupt() || kind == SignalKind::terminate();
        let ends_us = kind == SignalKind::hangup() || terminal || (ends && asked);
        if ends_us {
            return 128 + number;
        }
        asked |= ends;
        let _ = to.send(Frame::Signal(number)).await;
    }
}

/// Ctrl-C ends us, and the command gets SIGHUP for it.
#[cfg(not(unix))]
pub async fn pass_on(_to: &mpsc::Sender<Frame>, _terminal: bool) -> u8 {
    match tokio::signal::ctrl_c().await {
        Ok(()) => 130,
        Err(_) => std::future::pending().await,
    }
}
