//! Opens doors in the firewall to those who knock.

use std::process::ExitCode;

fn main() -> ExitCode {
    port_knocking_doors::commands::run()
}
