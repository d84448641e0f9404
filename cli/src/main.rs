//! `berth`: the command line. It talks to a control plane over the public API and knows nothing else.
//!
//! This file starts it and turns a failure into an exit status. One command is one file in [`command`]; what
//! they share is named for what it is: [`client`] (HTTP), [`screen`] (tables, progress, JSON), [`settle`]
//! (waiting for a release), [`attach`] (being attached to a command). Nothing here is specific to Linux.

mod arguments;
mod attach;
mod client;
mod command;
mod credentials;
mod dotenv;
mod failure;
mod git;
mod quantity;
mod screen;
mod session;
mod settle;
mod source;

use std::process::ExitCode;

use clap::Parser as _;

use crate::arguments::Arguments;
use crate::screen::Screen;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let screen = Screen::new(arguments.json);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("berth: the asynchronous runtime could not be started: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(command::run(&screen, arguments));
    // A thread that still reads a directory must not hold up the end.
    runtime.shutdown_background();
    match result {
        Ok(status) => ExitCode::from(status),
        Err(failure) => {
            screen.failure(&failure);
            failure.exit_code()
        }
    }
}
