//! Prints the demo: at most 80 columns, with colours where the terminal supports them.

use std::io::Write as _;

use anstyle::{AnsiColor, Style};
use doors_text::wrap::wrap;

/// Prints the steps of the demo.
#[derive(Clone, Copy, Debug)]
pub(super) struct Screen {
    heading: Style,
    good: Style,
    bad: Style,
    quiet: Style,
    kernel: Style,
    grant: Style,
}

impl Screen {
    pub(super) fn new() -> Self {
        let colour = |colour: AnsiColor| colour.on_default();
        Self {
            heading: colour(AnsiColor::Cyan).bold(),
            good: colour(AnsiColor::Green).bold(),
            bad: colour(AnsiColor::Red).bold(),
            quiet: Style::new().dimmed(),
            kernel: colour(AnsiColor::Blue),
            grant: colour(AnsiColor::Yellow).bold(),
        }
    }

    /// Prints the heading of a step.
    pub(super) fn step(self, number: usize, text: &str) {
        self.print(&format!("\n{0}{number}. {text}{0:#}\n", self.heading));
    }

    /// Prints an expected result.
    pub(super) fn right(self, text: &str) {
        self.print(&format!("   {0}✔{0:#} {text}\n", self.good));
    }

    /// Prints an unexpected result, to standard error, so that it is seen even if the output goes to a file.
    pub(super) fn wrong(self, text: &str) {
        let _ = anstream::stderr().write_all(format!("   {0}✘ {text}{0:#}\n", self.bad).as_bytes());
    }

    /// Prints a remark.
    pub(super) fn remark(self, text: &str) {
        self.print(&format!("   {text}\n"));
    }

    /// Prints a command with its prompt.
    pub(super) fn command(self, who: &str, text: &str) {
        self.print(&format!("   {0}{who}${0:#} {text}\n", self.quiet));
    }

    /// Prints a line of the daemon's log, without its date.
    pub(super) fn log(self, line: &str) {
        let line = line.split_once("Z ").map_or(line, |(_, rest)| rest).trim();
        for (number, part) in wrap(line, 64).into_iter().enumerate() {
            let lead = if number == 0 { "daemon│" } else { "      │" };
            self.print(&format!("   {0}{lead} {part}{0:#}\n", self.quiet));
        }
    }

    /// Prints the kernel's ruleset.
    pub(super) fn kernel(self, text: &str) {
        for line in text.lines() {
            let style = if line.contains("expires") { self.grant } else { self.kernel };
            self.print(&format!("   {0}kernel│{0:#} {style}{line}{style:#}\n", self.quiet));
        }
    }

    /// Prints firewalld's rules.
    pub(super) fn firewalld(self, text: &str) {
        for line in text.lines() {
            for part in wrap(line, 64) {
                self.print(&format!("   {0}firewalld│{0:#} {1}{part}{1:#}\n", self.quiet, self.grant));
            }
        }
    }

    fn print(self, text: &str) {
        // If the output is closed, there is no reader to inform.
        let _ = anstream::stdout().write_all(text.as_bytes());
    }
}
