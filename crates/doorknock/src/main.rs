//! Knocks on the doors of a server.

use std::process::ExitCode;

fn main() -> ExitCode {
    doorknock::cli::run(std::env::args_os().skip(1))
}
