//! `mica cp`: files between a container and this machine.
use crate::context::Cx;
use crate::failure::{Outcome, Status};
use crate::flags::Verb;
/// Copy files between a container and this machine
#[derive(Debug, clap::Args)]
pub(crate) struct CpArgs { #[arg(value_name = "SOURCE")] source: String, #[arg(value_name="DEST")] destination: String }
impl Verb for CpArgs {
    const USAGE: &'static str = "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-";
    fn run(self, _cx: &Cx) -> Outcome { let _ = (self.source, self.destination); Ok(Status::default()) }
}
