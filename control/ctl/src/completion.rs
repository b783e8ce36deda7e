//! `margayctl completion`: what shells need to complete command lines.

use std::io;

use clap::CommandFactory;
use clap_complete::Shell;

/// Arguments of `completion`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the script for the command line `C`, e.g. for `source <(margayctl completion bash)`.
pub(crate) fn run<C: CommandFactory>(args: &Args) -> io::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut C::command(), "margayctl", &mut script);
    io::Write::write_all(&mut io::stdout().lock(), &script)
}
