//! x
use crate::Failure;
#[derive(clap::Args)]
pub(crate) struct Options {}
pub(crate) fn run(_: &Options) -> Result<(), Failure> {
    Ok(())
}
