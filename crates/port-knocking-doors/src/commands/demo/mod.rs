//! Shows it all: the real daemon, the real gate, a real client, in a private network.
//!
//! ```text
//!   client 192.0.2.7, stranger 192.0.2.8 ──── cable ──── server 192.0.2.1
//!        doorknock                                        port-knocking-doors, the gate,
//!                                                         something that listens on port 22
//! ```
//!
//! Nothing of the host's own network is touched, and nothing is left behind, however it ends.

mod screen;
mod story;

use std::process::ExitCode;

use doors_lab as lab;

use self::{screen::Screen, story::Story};

/// What to show.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Options {
    /// Use a real firewalld instead of our own gate; it has to be installed
    #[arg(long)]
    firewalld: bool,
}

/// Runs the demo. Says with 0 that everything was as it must be.
pub(crate) fn run(options: &Options) -> ExitCode {
    let screen = Screen::new();
    if options.firewalld && !rustix::process::geteuid().is_root() {
        screen.wrong("a real firewalld runs for root only; leave --firewalld out, or run the demo as root");
        return ExitCode::FAILURE;
    }
    // Before any thread is started: a user namespace is entered by the whole process or not at all.
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
