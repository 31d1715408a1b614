//! Demonstrates the product with the real daemon, the real gate and a real client, in a private network.
//!
//! ```text
//!   client 192.0.2.7, stranger 192.0.2.8 ──── cable ──── server 192.0.2.1
//!        doorknock                                        port-knocking-doors, the gate,
//!                                                         a listener on port 22
//! ```
//!
//! The demo changes nothing in the host's own network, and leaves nothing behind, however it ends.

mod screen;
mod story;

use std::process::ExitCode;

use doors_lab as lab;

use self::{screen::Screen, story::Story};

/// The options of the demo.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Options {
    /// Use a real firewalld instead of our own gate; it has to be installed
    #[arg(long)]
    firewalld: bool,
}

/// Runs the demo. Returns exit code 0 if every step went as expected.
pub(crate) fn run(options: &Options) -> ExitCode {
    let screen = Screen::new();
    if options.firewalld && !rustix::process::geteuid().is_root() {
        screen.wrong("a real firewalld runs for root only; leave --firewalld out, or run the demo as root");
        return ExitCode::FAILURE;
    }
    // Before any thread starts: only a single-threaded process can enter a user namespace.
    let told = lab::become_root()
        .map_err(story::DemoError::from)
        .and_then(|()| Story::begin(screen, options.firewalld)?.tell());
    match told {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            screen.wrong(&doors_text::error_chain::in_one_line(&error));
            ExitCode::FAILURE
        }
    }
}
