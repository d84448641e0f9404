//! `berth completions SHELL`: what a shell reads to complete commands and options. Made from the grammar, so it is never
//! behind it.

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::screen::Screen;

const INSTALL: &str = "\
To install:
  bash  berth completions bash > ~/.local/share/bash-completion/completions/berth
  zsh   berth completions zsh > ~/.zfunc/_berth     (with ~/.zfunc in $fpath, before compinit)
  fish  berth completions fish > ~/.config/fish/completions/berth.fish";

/// Arguments of `completions`.
#[derive(Debug, clap::Args)]
#[command(after_help = INSTALL)]
pub struct Arguments {
    /// Which shell
    shell: Shell,
}

/// Runs it.
pub fn run(screen: &Screen, arguments: &Arguments) {
    let mut script = Vec::new();
    let mut grammar = crate::arguments::Arguments::command();
    clap_complete::generate(arguments.shell, &mut grammar, "berth", &mut script);
    screen.raw(String::from_utf8_lossy(&script));
}
