//! Background loops, one verb and noun a file. Each does by timer what it does when woken, and may be killed at any
//! moment: what it reads and writes is one transaction.

pub mod collect_garbage;
pub mod expire_rows;
pub mod plan_hosts;
pub mod purge_app;

use crate::app::App;

/// Starts every loop. They end with the runtime.
pub fn start(app: &App) {
    tokio::spawn(plan_hosts::run(app.clone()));
    tokio::spawn(expire_rows::run(app.clone()));
    tokio::spawn(collect_garbage::run(app.clone()));
}
