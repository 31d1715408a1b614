//! The one list of commands that people and CI share.
//!
//! ```text
//! cargo xtask test       everything that must be true: format, lints, licences, documents, tests
//! cargo xtask check      of that, what takes seconds and needs no root
//! cargo xtask root       a Debian 13 in a directory, whose firewalld is tested with; part of `test`
//! cargo xtask bench      the figures, beside those of the peers that Debian packages
//! cargo xtask fuzz       random and altered bytes, for as long as is asked for
//! cargo xtask generate   writes the files that are made from the sources
//! ```

mod bench;
mod commits;
mod examples;
mod fuzz;
mod generate;
mod licences;
mod programs;
mod root;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The one list of commands that people and CI share")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Check everything: format, commit messages, licences, lints, documents, every test, and that generated files
    /// are current
    Test,
    /// Check what takes seconds and needs no root: format, commit messages, licences, generated files, the example
    /// in Python
    Check,
    /// Make the Debian 13 whose firewalld is tested with, unless it is there
    Root,
    /// Measure, side by side with the peers that Debian packages
    Bench(bench::Options),
    /// Try random and altered bytes on everything that reads them, also behind the signature
    Fuzz {
        /// For so many seconds
        #[arg(default_value_t = 60)]
        seconds: u32,
    },
    /// Write the files that are made from the sources
    Generate {
        /// Write nothing; fail if a file is not current
        #[arg(long)]
        check: bool,
    },
}

fn main() -> ExitCode {
    let options = Cli::parse();
    // Paths are of the project, wherever it was called.
    if let Err(error) = std::env::set_current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")) {
        eprintln!("xtask: the project is no longer where it was built: {error}");
        return ExitCode::FAILURE;
    }
    let done = match options.command {
        Command::Test => test::run(),
        Command::Check => test::check(),
        Command::Root => root::run(),
        Command::Bench(options) => bench::run(&options),
        Command::Fuzz { seconds } => fuzz::run(seconds),
        Command::Generate { check } => generate::run(check),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("xtask: {failure}");
            ExitCode::FAILURE
        }
    }
}
