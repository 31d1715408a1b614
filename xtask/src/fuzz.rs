//! libFuzzer on everything that reads bytes of others.
//!
//! A stable compiler can do it: the coverage is LLVM's own pass, and libFuzzer is built by the crate
//! `libfuzzer-sys`, for which `g++` is needed.

use std::path::Path;

use crate::programs::{self, Failure};

/// What tells libFuzzer which code was reached (LLVM, "SanitizerCoverage").
const COVERAGE: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
                        -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
                        -Cllvm-args=-sanitizer-coverage-pc-table -Cdebug-assertions=on --cfg fuzzing";

/// The target is named so that build scripts, which run here, are built without it.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Fuzzes for so many seconds. What was found worth keeping stays in `fuzz/corpus`.
pub(crate) fn run(seconds: u32) -> Result<(), Failure> {
    programs::install(&[("g++", "g++")])?;
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    let mut build = programs::cargo(&["build", "--release", "--target", TARGET]);
    build.current_dir(&directory).env("RUSTFLAGS", COVERAGE);
    programs::succeed(build)?;
    let corpus = directory.join("corpus");
    std::fs::create_dir_all(&corpus)?;
    let mut fuzz = std::process::Command::new(directory.join("target").join(TARGET).join("release/bytes"));
    fuzz.arg(corpus).arg(format!("-max_total_time={seconds}")).args(["-max_len=600", "-print_final_stats=1"]);
    fuzz.current_dir(&directory);
    programs::succeed(fuzz)
}
